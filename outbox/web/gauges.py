"""The gauges, set when somebody scrapes: of the relay as it is, of the queue as it was last counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from outbox.health import Health
from outbox.observe import (
    BREAKERS_OPEN,
    COUNT_AGE,
    LANES_OWNED,
    OLDEST_DUE,
    QUEUE_DEPTH,
    READY,
    STUCK,
)
from outbox.operate import SinkStatus


def set_relay_gauges(health: Health, *, ready: bool) -> None:
    """Sets the gauges of what a relay knows itself."""
    READY.set(ready)
    for gauge in (LANES_OWNED, BREAKERS_OPEN):
        gauge.clear()
    for sink in health.sinks:
        LANES_OWNED.labels(sink.sink).set(len(sink.lanes))
        BREAKERS_OPEN.labels(sink.sink).set(len(sink.open_breakers))


def set_queue_gauges(depths: Sequence[SinkStatus], age: float, served: Iterable[str]) -> None:
    """Sets the gauges of what is in the queue; sinks that are `served` have some though nothing is there."""
    COUNT_AGE.set(age)
    for gauge in (QUEUE_DEPTH, STUCK, OLDEST_DUE):
        gauge.clear()
    by_sink = {status.sink: status for status in depths}
    for name in {*served, *by_sink}:
        _set_queue(by_sink.get(name) or SinkStatus.of(name))


def _set_queue(status: SinkStatus) -> None:
    states = {
        "scheduled": status.scheduled,
        "ready": status.due,
        "held": status.held,
        "retrying": status.retrying,
        "parked": status.parked,
    }
    for state, rows in states.items():
        QUEUE_DEPTH.labels(status.sink, state).set(rows)
    STUCK.labels(status.sink).set(status.stuck)
    OLDEST_DUE.labels(status.sink).set(status.oldest_seconds or 0.0)
