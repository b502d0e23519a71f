"""An event as a message of the outbox: what HuleEdu's services have in common when they say something."""

from __future__ import annotations

from typing import Any

from outbox import Message
from outbox.huleedu.events import EventEnvelope
from outbox.huleedu.tracing import trace_of


def kafka_message(key: str, envelope: EventEnvelope[Any]) -> Message:
    """Makes the message for Kafka that carries an event. What is said under one key keeps its order.

    Its headers have the trace that the event's metadata has.
    """
    return Message(
        type=envelope.event_type,
        sink="kafka",
        destination=envelope.event_type,
        key=key,
        # Encoded here: what a number may lose on the way to JSON is none of an event's fields.
        payload=envelope.model_dump_json().encode(),
        headers={
            "content_type": "application/json",
            "correlation_id": str(envelope.correlation_id),
            "schema_version": str(envelope.schema_version),
            "source_service": envelope.source_service,
            "occurred_at": envelope.event_timestamp.isoformat().replace("+00:00", "Z"),
            **(trace_of(envelope.metadata) if envelope.metadata else {}),
        },
        message_id=envelope.event_id,
    )
