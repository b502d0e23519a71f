"""Tells whether a relay does its work, by what it says itself: no database is asked.

Not ready: while it waits for the database or its schema, while it stops, while a pump fails, and when a
sink stalls: for `stall_after_seconds` nothing came of all that it tried. A deep queue is no stall, nor is a
broker that is down (its breaker is open): the relay cannot mend that, and where it is a sidecar the service
beside it would leave its load balancer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from outbox.health import Health, SinkHealth


class Watched(Protocol):
    """What the probes ask of a relay."""

    def health(self) -> Health:
        """Returns how the relay is doing now, by what it knows itself; answers at once."""


def reasons(health: Health, stall_after: float) -> list[str]:
    """Returns why a relay is not ready, in one line each; none if it is."""
    if health.stopping:
        return ["stopping"]
    if health.waiting_for == "end":
        return [f"the relay ended by itself: {health.reason}"]
    if health.waiting_for is not None:
        why = f": {health.reason}" if health.reason else ""
        return [f"waiting for {health.waiting_for}{why}"]
    return [reason for sink in health.sinks for reason in _problems(sink, stall_after)]


def _problems(sink: SinkHealth, stall_after: float) -> Iterator[str]:
    for failing in sink.failing:
        if failing.seconds > stall_after:
            yield f"{sink.sink}: pump {failing.pump} fails: {failing.reason}"
    seconds, reason = sink.in_vain
    if seconds > stall_after and None not in sink.open_breakers:
        yield f"{sink.sink} stalls: nothing has come of all that was tried for {seconds:.0f} s: {reason}"
