"""How much is allowed: a rate, and a number of connections. Pure: the caller brings the time."""

from __future__ import annotations

from collections import Counter

from outbox.huleedu.gateway.closing import OVERLOADED, TOO_MANY, Close


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


class Capacity:
    """Counts the open sockets, in all and of each user."""

    def __init__(self, total: int, per_user: int) -> None:
        self._total = total
        self._per_user = per_user
        self._open = 0
        self._open_of: Counter[str] = Counter()

    def refusal(self, user: str) -> Close | None:
        """Returns why this user may not open one more socket; None if the user may."""
        if self._open >= self._total:
            return OVERLOADED
        return TOO_MANY if self._open_of[user] >= self._per_user else None

    def take(self, user: str) -> None:
        """Counts one more open socket of this user."""
        self._open += 1
        self._open_of[user] += 1

    def give_back(self, user: str) -> None:
        """Takes note that one of this user's sockets is gone."""
        self._open -= 1
        self._open_of[user] -= 1
        if not self._open_of[user]:
            del self._open_of[user]
