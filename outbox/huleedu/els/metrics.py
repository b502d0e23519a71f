"""What ELS counts. No batch, user or message is ever a label."""

from __future__ import annotations

import time
from collections import Counter as Counted
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

REGISTRY = CollectorRegistry()

ProcessCollector(registry=REGISTRY)

WITHOUT_USER = Counter(
    "els_assignments_without_user_total",
    "Assignments and excess content that no browser is told of, because their batch has no user.",
    registry=REGISTRY,
)

WAITING = Gauge(
    "els_content_waiting", "Uploads that wait for the registration of their batch.", registry=REGISTRY
)
WAITING_OLDEST = Gauge(
    "els_content_waiting_oldest_seconds", "How long the oldest of them has waited.", registry=REGISTRY
)

_PER_USER = Histogram(
    "els_user_notifications",
    "Notifications that one user got within a minute; a sample is a user, who is not named.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000),
    registry=REGISTRY,
)


class PerUser:
    """How many notifications each user gets in a minute, told as one histogram over all of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends = clock() + _MINUTE
        self._counts: Counted[str] = Counted()

    def add(self, channel: str) -> None:
        """Counts a notification."""
        self.turn()
        self._counts[channel] += 1

    def turn(self) -> None:
        """Tells of the minute that is over, if one is; a user who got nothing in it is no sample."""
        if self._clock() < self._ends:
            return
        for number in self._counts.values():
            _PER_USER.observe(number)
        self._counts.clear()
        self._ends = self._clock() + _MINUTE


_MINUTE = 60.0
