"""How much is allowed: a rate. Pure: the caller brings the time."""

from __future__ import annotations


class TokenBucket:
    """Allows `burst` at once and `rate` per second in the long run. Times are monotonic seconds."""

    __slots__ = ("_burst", "_level", "_rate", "_then")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = float(burst)
        self._then = now

    def take(self, now: float) -> bool:
        """Returns True if one more is allowed now, and counts it then."""
        self._level = min(self._burst, self._level + (now - self._then) * self._rate)
        self._then = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
