"""What comes from Kafka: a record, the event that is read from it, and what is said of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from aiokafka import ConsumerRecord

from outbox.huleedu.events import EventEnvelope
from outbox.huleedu.events.envelope import Data
from outbox.huleedu.tracing import ids_of, trace_of


@dataclass(frozen=True, slots=True)
class Incoming(Generic[Data]):
    """An event, and the record that it came in."""

    event: EventEnvelope[Data]
    record: ConsumerRecord

    @property
    def data(self) -> Data:
        """What the event is about."""
        return self.event.data

    def trace(self) -> Mapping[str, str]:
        """Returns the trace context that it came with."""
        return trace_of(self.event.metadata or {}, headers_of(self.record))

    def names(self) -> dict[str, str]:
        """Returns what names the event in a line of the log."""
        return {
            "message_id": str(self.event.event_id),
            "event_type": self.record.topic,
            "correlation_id": str(self.event.correlation_id),
            **ids_of(self.trace()),
        }


def headers_of(record: ConsumerRecord) -> dict[str, str]:
    """Returns the headers that have a value, as far as they are text."""
    pairs: Sequence[tuple[str, bytes | None]] = record.headers
    return {name: text_of(value) for name, value in pairs if value is not None}


def text_of(value: str | bytes) -> str:
    """Returns the text as PostgreSQL can store it, whatever it is."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return text.replace("\0", "\\x00")


def about(record: ConsumerRecord) -> dict[str, Any]:
    """Returns where a record is, for a line of the log."""
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
