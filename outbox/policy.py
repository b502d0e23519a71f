"""How failures are treated, in numbers: how long waits grow, and how many attempts there are.

Needs the standard library only. What an error means for a delivery is the relay's to decide.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential growth from `first` to at most `longest` seconds, with full jitter."""

    first: float = 1.0
    longest: float = 300.0

    def ceiling(self, failures: int) -> float:
        """Returns the longest wait after this many failures (1 is the first)."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 62))

    def delay(self, failures: int, jitter: float) -> float:
        """Returns the wait itself; `jitter` is uniform in [0, 1).

        Full jitter (Brooker, "Exponential Backoff and Jitter", 2015), but never quite zero, so
        that a retry is always later than its failure.
        """
        return self.ceiling(failures) * (1.0 - jitter)


@dataclass(frozen=True, slots=True)
class Policy:
    """How one sink's failures are treated."""

    max_retries: int = 10
    """Counted attempts before a delivery is parked."""
    backoff: Backoff = Backoff()
    breaker: Backoff = Backoff(first=1.0, longest=30.0)
