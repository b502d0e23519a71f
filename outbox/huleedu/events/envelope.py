"""The envelope around every event on Kafka."""

from __future__ import annotations

from functools import cache
from typing import Any, Generic, TypeVar
from uuid import UUID

from outbox.huleedu.events.fields import Model, Moment, Object, Text

Data = TypeVar("Data", bound=Model)


class EventEnvelope(Model, Generic[Data]):
    """What every event says of itself, whatever it is about."""

    event_id: UUID
    """What consumers de-duplicate on; the message's id, the same on every try and in every sink."""
    event_type: Text
    """The topic's name."""
    event_timestamp: Moment
    """When the event was written."""
    source_service: Text
    """Which service says it."""
    schema_version: int = 1
    """The version of the format."""
    correlation_id: UUID
    """The same in everything that one request led to."""
    data_schema_uri: Text | None = None
    """Where the JSON Schema of `data` is, if somewhere."""
    data: Data
    """What the event is about."""
    metadata: Object | None = None
    """W3C `traceparent` and `tracestate`, and whatever else goes with the event."""


def envelope_of(data: type[Data]) -> type[EventEnvelope[Data]]:
    """Returns the class of envelopes around this class of data, for where that is known only at run time."""
    found: type[EventEnvelope[Data]] = _envelope_of(data)
    return found


@cache
def _envelope_of(data: Any) -> Any:
    return EventEnvelope.__class_getitem__(data)
