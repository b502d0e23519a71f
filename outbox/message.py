"""What is written, what is read back, and what a sink says of it: plain and frozen.

Owns the words the rest of the package talks in; knows neither database nor broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from outbox.errors import SinkError


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a writer wants said to one destination of one sink.

    `payload` is bytes, str (UTF-8), a pydantic model, anything JSON can hold, or None (a Kafka
    tombstone). Deliveries of one (sink, destination, `key`) are sent in the order they were
    written; without a key there is no order. It is sent from `available_at` on (at once if None)
    and dropped as expired from `expires_at` on; both need a time zone.

    `message_id` is what consumers de-duplicate on; None makes a new UUIDv7. Give the same id
    to the messages that say the same thing to different destinations (see `outbox.new_id`).

    `headers` go with the message, strings only. The Kafka sink gives these a place of their own:
    `correlation_id`, `causation_id`, `schema_version`, `source_service`, `content_type`,
    `occurred_at` (RFC 3339), `traceparent`, `tracestate`.
    """

    type: str
    sink: str
    destination: str
    payload: Any
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    available_at: datetime | None = None
    expires_at: datetime | None = None
    message_id: UUID | None = None


class Delivery(NamedTuple):
    """One row, as the pump reads it back: one message to one destination of one sink.

    A named tuple because a relay makes tens of thousands of them a second.
    """

    id: int
    """Position in the order; rises with each write."""
    lane: int
    """Key group, 0 to 63."""
    key_hash: int
    """Equal for all deliveries of one (destination, key); unique where the key is None."""
    attempts: int
    """Failed attempts counted so far."""
    deferred: bool
    """It waited for its time: scheduled, or a retry."""
    head: bool
    """Its key waits for it: it failed before."""
    uncertain: bool
    """An earlier send may have arrived."""
    expired: bool
    """Past `expires_at` by the database's clock when it was read."""
    size: int
    """Bytes of payload, key and headers, roughly."""
    message_id: UUID
    type: str
    destination: str
    key: str | None
    payload: bytes | None
    headers: str
    """A JSON object of strings, as written."""
    created_at: datetime
    expires_at: datetime | None
    replay_id: UUID | None


class Sent(NamedTuple):
    """The sink has it. What it tells of the place goes into the receipt."""

    partition: int | None = None
    """Kafka: the partition."""
    offset: int | None = None
    """Kafka: the offset in it."""
    receivers: int | None = None
    """Redis: how many subscribers got it; zero is success."""


Result = Sent | SinkError
"""What a sink says of one delivery."""
