"""The gauges, set from one look at the relay and its queue when somebody scrapes.

What could not be read is absent then, rather than what it was before.
"""

from __future__ import annotations

from collections import defaultdict

from outbox.observe import BREAKERS_OPEN, LANES_OWNED, OLDEST_DUE, QUEUE_DEPTH, READY, STUCK
from outbox.operate import Depth, SinkStatus
from outbox.web.readiness import Readiness


def set_gauges(found: Readiness) -> None:
    """Sets all gauges from what a look at the relay found."""
    READY.set(not found.reasons)
    for gauge in (QUEUE_DEPTH, STUCK, OLDEST_DUE, LANES_OWNED, BREAKERS_OPEN):
        gauge.clear()
    for sink in found.health.sinks:
        LANES_OWNED.labels(sink.sink).set(len(sink.lanes))
        BREAKERS_OPEN.labels(sink.sink).set(len(sink.open_breakers))
    if found.depths is not None:
        by_sink: dict[str, list[Depth]] = defaultdict(list)
        for depth in found.depths:
            by_sink[depth.sink].append(depth)
        for name in {each.sink for each in found.health.sinks} | by_sink.keys():
            _set_queue(SinkStatus.of(name, by_sink[name]))


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
