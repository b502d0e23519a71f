"""Whether a sink gets anywhere: it does while deliveries are done, not while failures are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic

from outbox.relay.verdict import Failure

_MEMORY_SECONDS = 60.0
"""How long after it was to be tried again a failure still says something."""


class Progress:
    """What the pumps of one sink know of that. A sink that is down, or a part of it, is no failure here."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._reason = ""
        self._clock = clock
        self._done_at = clock()
        self._failed: set[int] = set()
        self._sends: list[float] = []
        self._first = self._last = self._until = 0.0

    @property
    def quiet_seconds(self) -> float:
        """How long ago something was last delivered, or since there is a relay."""
        return self._clock() - self._done_at

    def in_vain(self) -> tuple[float, str]:
        """Returns for how long nothing has come of all that was tried, and why.

        That is no time while it is one delivery that fails, which may be at fault itself.
        """
        now = self._clock()
        lasts = len(self._failed) > 1 and now <= self._until
        hangs = now - min(self._sends, default=now)
        return max((self._last - self._first if lasts else 0.0, self._reason), (hangs, "a send does not end"))

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Takes note that a send is under way within the block."""
        began = self._clock()
        self._sends.append(began)
        try:
            yield
        finally:
            self._sends.remove(began)

    def done(self) -> None:
        """Takes note that something was delivered."""
        self._done_at = self._clock()
        self._failed.clear()

    def failed(self, failures: Iterable[Failure]) -> None:
        """Takes note of failures, but for those that are due to what is down."""
        for failure in failures:
            if failure.counted:
                self.tried(failure.delivery.id, failure.reason, failure.delay or 0.0)

    def tried(self, delivery: int, reason: str, again_in: float = 0.0) -> None:
        """Takes note that a delivery was not made, and for how many seconds it will not be tried."""
        now = self._clock()
        if not self._failed or now > self._until:
            self._failed.clear()
            self._first = self._until = now
        if len(self._failed) < 2:
            self._failed.add(delivery)
        self._last, self._reason = now, reason
        self._until = max(self._until, now + again_in + _MEMORY_SECONDS)
