"""One record from Kafka: read, applied once in one transaction, or parked with the reason.

The inbox does not know what is parked: written to its topic once more, it is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

import structlog
from aiokafka import ConsumerRecord
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from outbox import MessageError, once
from outbox.errors import unwrapped
from outbox.huleedu.consume.metrics import ConsumerMetrics
from outbox.huleedu.errors import Unacceptable
from outbox.huleedu.events import EventEnvelope, envelope_of
from outbox.huleedu.events.envelope import Data
from outbox.huleedu.schema import parked_input
from outbox.huleedu.tracing import continued

_log = structlog.get_logger(__name__)


_REFUSED_DATA = ("22", "23")
"""PostgreSQL's classes of errors for data that it cannot hold."""


@dataclass(frozen=True, slots=True)
class Handler(Generic[Data]):
    """What a service does with the events of one topic."""

    topic: str
    data: type[Data]
    apply: Callable[[AsyncConnection, EventEnvelope[Data]], Awaitable[str]]
    """Works in the caller's transaction; returns what became of the event, in a word for the metrics."""


class Receiver:
    """Applies records for one consumer, whose name is what the inbox knows it by."""

    def __init__(
        self, engine: AsyncEngine, consumer: str, handlers: Sequence[Handler[Any]], metrics: ConsumerMetrics
    ) -> None:
        self.topics = tuple(handler.topic for handler in handlers)
        self._engine = engine
        self.consumer = consumer
        self._handlers = {handler.topic: handler for handler in handlers}
        self._envelopes = {handler.topic: envelope_of(handler.data) for handler in handlers}
        self._metrics = metrics

    async def receive(self, record: ConsumerRecord) -> None:
        """Applies a record, drops it if it was applied before, or parks it.

        Raises what a retry might heal.
        """
        began = time.monotonic()
        try:
            outcome = await self._apply(record)
        except Exception as error:
            reason = unacceptable(error)
            if reason is None:
                raise
            outcome = "parked"
            await self._park(record, reason)
        self._metrics.events.labels(record.topic, outcome).inc()
        self._metrics.seconds.labels(record.topic).observe(time.monotonic() - began)
        self._metrics.age.labels(record.topic).observe(max(0.0, time.time() - record.timestamp / 1_000))

    async def _apply(self, record: ConsumerRecord) -> str:
        handler = self._handlers[record.topic]
        event = self._read(record)
        with _told_of(record, event):
            async with (
                self._engine.begin() as connection,
                once(connection, self.consumer, event.event_id) as first,
            ):
                outcome = await handler.apply(connection, event) if first else "repeated"
            _log.info("event.applied", outcome=outcome, partition=record.partition, offset=record.offset)
        return outcome

    def _read(self, record: ConsumerRecord) -> EventEnvelope[Any]:
        if record.value is None:
            raise Unacceptable("there is no value")
        return self._envelopes[record.topic].model_validate_json(record.value)

    async def _park(self, record: ConsumerRecord, reason: str) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(
                insert(parked_input).on_conflict_do_nothing(),
                {
                    "consumer": self.consumer,
                    "topic": record.topic,
                    "partition": record.partition,
                    "partition_offset": record.offset,
                    "key": record.key,
                    "value": record.value,
                    "headers": {_text(name): _text(value) for name, value in record.headers},
                    "reason": _text(reason),
                },
            )
        _log.error(
            "event.parked",
            reason=reason,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )


def unacceptable(error: Exception) -> str | None:
    """Returns why the input that led to this error can never be applied; None where a retry might heal it."""
    match error:
        case ValidationError():
            # Never the input itself: it may hold anything.
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            return "; ".join(_problem(problem["loc"], problem["msg"]) for problem in problems[:5])
        case Unacceptable() | MessageError():
            return str(error)
        case DBAPIError() if str(getattr(error.orig, "sqlstate", None)).startswith(_REFUSED_DATA):
            # Its message may quote what was refused.
            return f"the database refuses it: {type(unwrapped(error)).__name__}"
        case _:
            return None


def _problem(place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(map(str, place))
    message = message.removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


@contextmanager
def _told_of(record: ConsumerRecord, event: EventEnvelope[Any]) -> Iterator[None]:
    """Names the event in the log lines of the block, and lets what is written there go on with its trace."""
    headers = {name: value.decode("ascii", "replace") for name, value in record.headers}
    about = {
        "message_id": str(event.event_id),
        "event_type": record.topic,
        "correlation_id": str(event.correlation_id),
    }
    with continued(event.metadata or {}, headers), structlog.contextvars.bound_contextvars(**about):
        yield


def _text(value: str | bytes) -> str:
    """Returns the text as PostgreSQL can store it, whatever it is."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return text.replace("\0", "\\x00")
