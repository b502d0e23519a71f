"""How many events go into one transaction: as many as take a moment, so that its locks are short."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import ConsumerRecord

SET_MOST = 200
SET_SECONDS = 0.05
SET_LEAST_BYTES = 65_536
"""Some hundred events about one essay each. A transaction of few takes hardly less time, so on a busy
machine, or with a database far away, sets would become ever smaller, with ever more of them to begin."""


class Pace:
    """At most 200 events, and no more than take 50 ms by what the last ones took; yet 64 KB of them."""

    def __init__(self) -> None:
        self.size = SET_MOST
        """How many events take 50 ms."""
        self._careful = False

    def of(self, records: Sequence[ConsumerRecord]) -> int:
        """Returns how many of the records that come next to apply in one transaction."""
        return self.size if self._careful else max(self.size, _light(records))

    def took(self, events: int, seconds: float) -> None:
        """Takes note of how long so many events took in one transaction."""
        fitting = int(events * SET_SECONDS / max(seconds, 1e-6))
        # Not to more than twice as many, by the sight of a few.
        self.size = max(1, min(SET_MOST, fitting, 2 * max(events, self.size)))
        self._careful = False

    def failed(self) -> None:
        """Takes note of a failure: fewer at once may be what helps."""
        self.size = max(1, self.size // 2)
        self._careful = True


def _light(records: Sequence[ConsumerRecord]) -> int:
    """Returns how many of them, and not more than a set has, are 64 KB together."""
    left = SET_LEAST_BYTES
    for number, record in enumerate(records[:SET_MOST]):
        left -= len(record.value or b"") + len(record.key or b"")
        if left < 0:
            return number
    return SET_MOST
