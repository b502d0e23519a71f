"""Reads the environment and `.env` into settings: the only reader of either.

Settings have a prefix and say which variables they have, and where the value of each belongs. An empty
variable is not set. One with the prefix that is none of them gets a warning and a guess; what a cluster says
of its services is left out.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from outbox.errors import SettingsError
from outbox.settings.links import is_address, service_links
from outbox.settings.masking import masked

_log = logging.getLogger("outbox")

Place = tuple[str, ...]
"""Where a value is in its settings, such as ("kafka", "client_id")."""

Shown = str | float | bool | None
"""A value as it may be shown to anybody."""


class Setting(NamedTuple):
    """One line of `outbox config`: what is in force and why. A secret's value is masked."""

    variable: str
    value: Shown
    origin: str
    """`environment`, `.env` or `default`."""
    description: str


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that may be set."""

    name: str
    place: Place
    field: FieldInfo
    section: type[BaseModel]
    """The class that has it."""
    always: bool = True
    """False if it is in force only where it is set."""

    @property
    def secret(self) -> bool:
        """True if its value is shown to nobody."""
        return "SecretStr" in str(self.field.annotation)

    def shown(self, value: Any) -> Shown:
        """Returns the value for anybody to see: no password in a URL, and nothing of other secrets."""
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        match value:
            case None | bool() | int() | float():
                return value
            case tuple():
                return ", ".join(value)
            case str() if "://" in value and (self.name.endswith("URL") or not self.secret):
                return masked(value)
            case _:
                return "***" if self.secret else str(value)


S = TypeVar("S", bound="ServiceSettings")


@dataclass(frozen=True, slots=True)
class Reading(Generic[S]):
    """What was read, with what `outbox config` tells about it."""

    settings: S
    origins: Mapping[str, str]
    """Which variables were set, and where."""
    warnings: tuple[str, ...]
    """A line for each variable that looks like ours and is none, or that a cluster has set."""
    variables: Mapping[str, Variable]
    """Every variable there is, by its name."""

    def listing(self) -> Iterator[Setting]:
        """Gives every setting in force."""
        for name, each in self.variables.items():
            if each.always or name in self.origins:
                value = each.shown(_value_at(self.settings, each.place))
                origin = self.origins.get(name, "default")
                yield Setting(name, value, origin, each.field.description or "")

    def logged(self) -> S:
        """Returns the settings; each warning becomes a line of the log."""
        for warning in self.warnings:
            _log.warning("%s", warning)
        return self.settings


class Section(BaseModel):
    """Settings that belong together, frozen; the text below a field describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ServiceSettings(Section):
    """How a process logs.

    The settings of a service derive from it; their variables are the names of their fields after `prefix`, in
    capitals. In code, a class takes what it is given and its defaults, whatever the environment says; a wrong
    value raises pydantic's `ValidationError`.
    """

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
    def load(cls, environment: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> Self:
        """Returns what the environment and `.env` say; the environment wins. What is odd there is logged.

        Raises `SettingsError` with a line for each wrong value, which names the variable and what is allowed.
        """
        return cls.read(environment, env_file).logged()

    @classmethod
    def read(
        cls, environment: Mapping[str, str] | None = None, env_file: Path = Path(".env")
    ) -> Reading[Self]:
        """Returns the settings as `load` does, and where each value came from; nothing is logged."""
        here = _with_prefix(cls.prefix, os.environ if environment is None else environment)
        addresses = {name: text for name, text in here.items() if is_address(name, text)}
        here = _without(addresses, here)
        found = {**_with_prefix(cls.prefix, dotenv_values(env_file)), **here}
        links = service_links(found)
        variables = tuple(cls.variables(_without(links, found)))
        known = _by_name(variables)
        found = _without(links - known.keys(), found)
        settings = _validated(cls, found, variables)
        origins = {name: "environment" if name in here else ".env" for name in found}
        ignored = (_is_link(known[name], text, settings) for name, text in addresses.items() if name in known)
        unknown = (_is_unknown(name, known) for name in found if name not in known)
        return Reading(settings, origins, (*ignored, *unknown), known)

    @classmethod
    def variables(cls, found: Mapping[str, str]) -> Iterator[Variable]:
        """Gives every variable that may be set; those that are, `found`, may bring others."""
        del found
        return variables_of(cls, cls.prefix)


def variables_of(
    section: type[BaseModel], prefix: str, place: Place = (), *, always: bool = True
) -> Iterator[Variable]:
    """Gives a variable for each field of a class, its own before those that it inherits."""
    seen: set[str] = set()
    for owner in section.__mro__:
        for name in inspect.get_annotations(owner):
            if name in section.model_fields and name not in seen:
                seen.add(name)
                field = section.model_fields[name]
                yield Variable(f"{prefix}{name}".upper(), (*place, name), field, owner, always)


def _with_prefix(prefix: str, variables: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in variables.items() if name.startswith(prefix) and text}


def _without(names: Collection[str], variables: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in variables.items() if name not in names}


def _by_name(variables: Iterable[Variable]) -> dict[str, Variable]:
    """Returns the variables by name. One may have several places; the first is where its value is told."""
    found: dict[str, Variable] = {}
    for each in variables:
        found.setdefault(each.name, each)
    return found


def _validated(model: type[S], found: Mapping[str, str], variables: Collection[Variable]) -> S:
    values: dict[str, Any] = {}
    for each in variables:
        if each.name in found:
            _put(values, each.place, found[each.name])
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise SettingsError("\n".join(_explain(each, found, variables) for each in problems)) from None


def _put(values: dict[str, Any], place: Place, text: str) -> None:
    for part in place[:-1]:
        values = values.setdefault(part, {})
    values[place[-1]] = text


def _value_at(value: Any, place: Place) -> Any:
    for part in place:
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    return value


def _explain(problem: ErrorDetails, found: Mapping[str, str], variables: Iterable[Variable]) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    at = next((each for each in variables if each.place == problem["loc"][: len(each.place)]), None)
    if at is None:
        return message  # It is about several settings and names them.
    value = f"={at.shown(found[at.name])}" if at.name in found else ""
    return f"{at.name}{value}: {message[0].lower()}{message[1:]}"


def _is_unknown(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "")


def _is_link(variable: Variable, text: str, settings: ServiceSettings) -> str:
    return (
        f"{variable.name}={variable.shown(text)} is a cluster's link to a service, not a port, "
        f"and is left out: {_value_at(settings, variable.place)} is in force; "
        f"set {variable.name} in the container, or enableServiceLinks: false in its pod"
    )
