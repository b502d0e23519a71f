"""What the settings of HuleEdu's services have in common: how they are read, and how they log.

In code, a class takes what it is given and its defaults, whatever the environment says; a wrong
value raises pydantic's `ValidationError`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from outbox.errors import SettingsError


class ServiceSettings(BaseModel):
    """The settings of one service, frozen. Its variables are its fields' names after `prefix`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prefix: ClassVar[str]

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """How log lines look; `auto` is `console` on a terminal, else `json`."""
    service_name: str
    """`service.name` in the logs."""
    environment: str = "development"
    """`deployment.environment` in the logs."""

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Self:
        """What the environment and `.env` say; the environment wins, an empty variable is not set.

        Raises `SettingsError` with a line for each wrong value, which names the variable.
        """
        found = {**dotenv_values(".env"), **(os.environ if environment is None else environment)}
        texts = {name: found.get(cls._variable(name)) for name in cls.model_fields}
        try:
            return cls.model_validate({name: text for name, text in texts.items() if text})
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
            raise SettingsError("\n".join(map(cls._explain, problems))) from None

    @classmethod
    def _variable(cls, name: str) -> str:
        return cls.prefix + name.upper()

    @classmethod
    def _explain(cls, problem: ErrorDetails) -> str:
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            return message  # It is about several settings and names them.
        return f"{cls._variable(str(problem['loc'][0]))}: {message[0].lower()}{message[1:]}"
