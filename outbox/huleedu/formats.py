"""The JSON Schema of each format, as shipped in `schemas/`.

`python -m outbox.huleedu.formats` writes the files anew after a model has changed.

What ELS and RAS say themselves is described as they say it: every field is there, nulls are written out.
What they only read is described as they accept it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from outbox.huleedu.events import (
    EXCESS_CONTENT,
    PROVISIONING_COMPLETED,
    SLOT_ASSIGNED,
    TOPICS,
    ExcessNotification,
    SlotAssignedNotification,
    envelope_of,
)
from outbox.huleedu.ras.answer import BatchStatus, Problem

SCHEMAS = Path(__file__).with_name("schemas")

NOTIFICATION = "redis.essay_slot_assigned"
EXCESS_NOTIFICATION = "redis.essay_excess"
BATCH_STATUS = "ras.batch_status"
PROBLEM = "ras.problem"

_OURS = (SLOT_ASSIGNED, PROVISIONING_COMPLETED, EXCESS_CONTENT)


class Format(NamedTuple):
    """A format, and from which side its schema describes it."""

    model: type[BaseModel]
    mode: Literal["validation", "serialization"]


def _enveloped(topic: str) -> Format:
    return Format(envelope_of(TOPICS[topic]), "serialization" if topic in _OURS else "validation")


FORMATS: Mapping[str, Format] = {
    **{topic: _enveloped(topic) for topic in TOPICS},
    NOTIFICATION: Format(SlotAssignedNotification, "serialization"),
    EXCESS_NOTIFICATION: Format(ExcessNotification, "serialization"),
    BATCH_STATUS: Format(BatchStatus, "serialization"),
    PROBLEM: Format(Problem, "serialization"),
}
"""By the name of the schema's file, which is the topic for what is on Kafka."""


def schema_of(name: str) -> dict[str, Any]:
    """Returns the JSON Schema of a format, made from its model."""
    model, mode = FORMATS[name]
    schema = model.model_json_schema(mode=mode)
    if name in _OURS:
        schema["properties"]["event_type"]["const"] = name
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": name}


def shipped(name: str) -> dict[str, Any]:
    """Returns the JSON Schema of a format, read from its file."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))
    return found


def write_schemas() -> None:
    """Writes the JSON Schema of every format to its file."""
    SCHEMAS.mkdir(exist_ok=True)
    for name in FORMATS:
        (SCHEMAS / f"{name}.json").write_text(json.dumps(schema_of(name), indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    write_schemas()
