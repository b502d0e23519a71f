"""How many events go into one transaction: as many as take a moment, so that its locks are short."""

from __future__ import annotations

SET_MOST = 200
SET_SECONDS = 0.05


class Pace:
    """At most 200 events, and no more than take 50 ms by what the last ones took."""

    def __init__(self) -> None:
        self.size = SET_MOST
        """How many events to apply next."""

    def took(self, events: int, seconds: float) -> None:
        """Takes note of how long so many events took in one transaction."""
        fitting = int(events * SET_SECONDS / max(seconds, 1e-6))
        # Not to more than twice as many, by the sight of a few.
        self.size = max(1, min(SET_MOST, fitting, 2 * max(events, self.size)))

    def failed(self) -> None:
        """Takes note of a failure: fewer at once may be what helps."""
        self.size = max(1, self.size // 2)
