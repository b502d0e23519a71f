"""The environment and `.env` into `Settings`: the only reader of either.

`OUTBOX_BATCH_SIZE`, `OUTBOX_KAFKA_CLIENT_ID`; what all sinks have may be set for all
(`OUTBOX_MAX_RETRIES`) or for one (`OUTBOX_REDIS_MAX_RETRIES`). An empty variable is not set.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dotenv import dotenv_values
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from outbox.errors import SettingsError
from outbox.settings.model import KafkaSettings, RedisSettings, Settings, SinkSettings

PREFIX = "OUTBOX_"

Place = tuple[str, ...]
"""Where a value is in `Settings`, such as ("kafka", "client_id")."""

_SECTIONS: Mapping[str, type[BaseModel]] = {"kafka": KafkaSettings, "redis": RedisSettings}
_PASSWORD_IN_URL = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s:/@]*):\S*@", re.IGNORECASE)
_PASSWORD_IN_QUERY = re.compile(r"(?P<before>[?&](ssl)?password=)[^&\s]+", re.IGNORECASE)
_SECRET_WORDS = ("password", "secret", "token", "key", "credential")


class Setting(NamedTuple):
    """One line of `outbox config`: what is in force and why. A secret's value is masked."""

    variable: str
    value: str | float | bool | None
    origin: str
    """`environment`, `.env` or `default`."""
    description: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, with what `outbox config` tells about it."""

    settings: Settings
    origins: Mapping[str, str]
    """Which variables were set, and where."""
    warnings: tuple[str, ...]
    """A line for each variable that looks like ours and is none."""

    def listing(self) -> Iterator[Setting]:
        """Every setting in force."""
        sinks = tuple(self.settings.extra_sinks)
        for name, (place, field) in _known(sinks).items():
            if place[0] == "own" and name not in self.origins:
                continue
            value = _shown(_look_up(self.settings, place), secret=_is_secret(field))
            yield Setting(name, value, self.origins.get(name, "default"), field.description or "")
        for sink in sinks:
            for option, text in self.settings.sink_options(sink).items():
                name = variable(("options", sink, option))
                if name not in _known(sinks):
                    secret = any(word in option for word in _SECRET_WORDS)
                    yield Setting(name, _shown(text, secret=secret), self.origins[name], f"For {sink}.")


def load(environment: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> Settings:
    """The settings that the environment and `.env` make; the environment wins.

    Raises `SettingsError` with a line for each wrong value, which names the variable and what is allowed.
    """
    return read(environment, env_file).settings


@cache
def loaded() -> Settings:
    """What `load()` gave when it was first asked for in this process: what writers and consumers go by."""
    return load()


def read(environment: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> Reading:
    """The same as `load`, and where each value came from."""
    set_here = _ours(os.environ if environment is None else environment)
    in_file = _ours(dotenv_values(env_file))
    found = {**in_file, **set_here}
    sinks = _extra_sinks(found)
    known = _known(sinks)
    values: dict[str, Any] = {}
    warnings = []
    for name, text in found.items():
        sink = next((sink for sink in sinks if name.startswith(variable(("options", sink, "")))), None)
        if sink is not None:
            option = name.removeprefix(variable(("options", sink, ""))).lower()
            _put(values, ("options", sink, option), text)
        if name in known:
            _put(values, known[name][0], text)
        elif sink is None:
            warnings.append(_unknown(name, known))
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem, known) for problem in error.errors())) from None
    origins = {name: "environment" if name in set_here else ".env" for name in found}
    return Reading(settings, origins, tuple(warnings))


def variable(place: Place) -> str:
    """The variable that sets what is at this place."""
    words = place[1:] if place[0] in ("every_sink", "own", "options") else place
    return PREFIX + "_".join(words).upper()


def masked(text: str) -> str:
    """The text with the password of each URL in it replaced by stars."""
    text = _PASSWORD_IN_URL.sub(r"\g<before>:***@", text)
    return _PASSWORD_IN_QUERY.sub(r"\g<before>***", text)


def _ours(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(PREFIX) and value}


def _extra_sinks(found: Mapping[str, str]) -> tuple[str, ...]:
    """The names in OUTBOX_SINKS, longest first: `kafka_eu` has its variables before `kafka` claims them."""
    items = found.get(f"{PREFIX}SINKS", "").split(",")
    names = {item.partition("=")[0].strip() for item in items if "=" in item}
    return tuple(sorted(names, key=len, reverse=True))


def _known(extra_sinks: tuple[str, ...]) -> dict[str, tuple[Place, FieldInfo]]:
    """Every variable, where its value belongs, and what its field says."""
    fields: dict[Place, FieldInfo] = {}
    plain = {name: field for name, field in Settings.model_fields.items() if name not in _COMPOUND}
    fields.update({(name,): field for name, field in plain.items()})
    fields.update({("every_sink", name): field for name, field in SinkSettings.model_fields.items()})
    for section, model in _SECTIONS.items():
        fields.update({(section, name): field for name, field in model.model_fields.items()})
    for sink in (*_SECTIONS, *extra_sinks):
        fields.update({("own", sink, name): field for name, field in SinkSettings.model_fields.items()})
    return {variable(place): (place, field) for place, field in fields.items()}


_COMPOUND = ("every_sink", "own", "options", *_SECTIONS)


def _put(values: dict[str, Any], place: Place, text: str) -> None:
    for part in place[:-1]:
        values = values.setdefault(part, {})
    values[place[-1]] = text


def _look_up(value: Any, place: Place) -> Any:
    for part in place:
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    return value


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation)


def _shown(value: Any, *, secret: bool) -> str | float | bool | None:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    match value:
        case None | bool() | int() | float():
            return value
        case str() if "://" in value:
            return masked(value)
        case _:
            return "***" if secret else str(value)


def _unknown(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "")


def _explain(problem: ErrorDetails, known: Mapping[str, tuple[Place, FieldInfo]]) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    place = tuple(str(part) for part in problem["loc"])
    name = variable(place) if place else ""
    if name not in known:
        return message  # It is about several settings and names them.
    value = _shown(problem["input"], secret=_is_secret(known[name][1]))
    return f"{name}={value}: {message[0].lower()}{message[1:]}"
