"""Sinks that are started, used, and stopped whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from outbox.message import Delivery, Sent
from outbox.sinks import Sink

S = TypeVar("S", bound=Sink)


@asynccontextmanager
async def started(sink: S) -> AsyncIterator[S]:
    """The sink, connected."""
    try:
        await sink.start()
        yield sink
    finally:
        await sink.stop()


async def is_sent(sink: Sink, deliveries: Sequence[Delivery]) -> bool:
    """Send them; whether the sink has all of them."""
    return all(isinstance(result, Sent) for result in await sink.send(deliveries))
