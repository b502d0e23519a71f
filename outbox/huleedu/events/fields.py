"""The kinds of field that events are made of: what is accepted is what can be stored, sent and shown.

Readers are lenient where nothing is lost by it: unknown fields are ignored, a time without an offset
is UTC. What PostgreSQL, a Kafka key or a Redis channel could not hold is refused here, with a reason,
so that it is found when it comes and not when it is to be used.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import to_json

from outbox.huleedu.channels import PREFIX_BYTES
from outbox.schema import DESTINATION_BYTES

USER_ID_BYTES = DESTINATION_BYTES - PREFIX_BYTES
"""The longest user id: the name of its channel is the destination of a delivery."""

ID_BYTES = 255
"""The longest id."""

_JSON_LONGEST = len(r"\u0000")

COUNT_MAX = 2**31 - 1
"""The largest integer column."""


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("has a NUL character, which PostgreSQL cannot store")
    return text


def _usable_as_id(text: str) -> str:
    if text in (".", ".."):
        raise ValueError("cannot be asked for: in an address it is a step in the path")
    # Not counted in characters: a message that names a thousand of them must stay below 1 MB. Most are so
    # short that they need not be written to be measured.
    if _JSON_LONGEST * len(text) > ID_BYTES and len(to_json(text)) - 2 > ID_BYTES:
        raise ValueError(f"has more than {ID_BYTES} bytes as JSON writes it")
    return text


def _names_a_channel(text: str) -> str:
    if len(text.encode()) > USER_ID_BYTES:
        raise ValueError(f"has more than {USER_ID_BYTES} bytes, too many for the name of a channel")
    return text


# What asyncpg takes for infinity, at either end, comes back from it without a zone.
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


def _utc(moment: datetime) -> datetime:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not _FIRST <= aware <= _LAST:
        raise ValueError("is too close to the ends of time to be one in UTC")
    return aware if aware.tzinfo is UTC else aware.astimezone(UTC)


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[str, StringConstraints(max_length=255), AfterValidator(_storable)]
Id = Annotated[
    str,
    StringConstraints(min_length=1, max_length=ID_BYTES),
    AfterValidator(_storable),
    AfterValidator(_usable_as_id),
]
UserId = Annotated[Id, AfterValidator(_names_a_channel)]
FileName = Annotated[str, StringConstraints(max_length=1_024), AfterValidator(_storable)]
Moment = Annotated[datetime, AfterValidator(_utc)]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Object = dict[str, Any]


class Model(BaseModel):
    """Frozen; fields it does not know are ignored. Everything is written, nulls too."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )
