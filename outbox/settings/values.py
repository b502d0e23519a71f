"""How values are written in a variable: durations, ports, lists, addresses.

Durations are seconds; text may have a unit (`500ms`, `30s`, `15m`, `12h`, `7d`, `2w`) or be ISO 8601 (`P7D`).
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints

from outbox.settings.address import Address

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"\s*(?P<number>\d+(\.\d+)?)\s*(?P<unit>ms|s|m|h|d|w)?\s*")
_ISO_DURATION = re.compile(r"P(?=.)((?P<d>\d+)D)?(T(?=.)((?P<h>\d+)H)?((?P<m>\d+)M)?((?P<s>\d+(\.\d+)?)S)?)?")


def _seconds(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, str):
        return value
    if match := _DURATION.fullmatch(value):
        return float(match["number"]) * _UNITS[match["unit"] or "s"]
    if match := _ISO_DURATION.fullmatch(value):
        return sum(float(number or 0) * _UNITS[unit] for unit, number in match.groupdict().items())
    raise ValueError("must be seconds, or a number with a unit: 500ms, 30s, 15m, 12h, 7d, 2w")


def _split(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _is_postgres(value: SecretStr) -> SecretStr:
    Address.of(value.get_secret_value())
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
"""A duration, more than none."""
Delay = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
"""A duration, possibly none."""
WholeSeconds = Annotated[int, BeforeValidator(_seconds), Field(ge=1)]
"""A duration in whole seconds, for servers that count no finer."""
Port = Annotated[int, Field(ge=0, le=65_535)]
"""A TCP port to listen on; 0 takes a free one."""
Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Several words, separated by commas."""
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
"""A name in PostgreSQL that needs no quotes."""
PostgresUrl = Annotated[SecretStr, AfterValidator(_is_postgres)]
"""The address of a database, with its password."""
