"""All policy about failure: what an error means for a delivery, and when a breaker lets through.

Pure: no clock, no randomness and no I/O of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from outbox.errors import Permanent, SinkError, Unavailable, Unsent
from outbox.message import Keep, Outcome, Park, Retry

# How far the breaker's backoff has grown for a key whose part of a destination is down. It is not
# counted, so it cannot grow; a few seconds is about what a new partition leader takes.
_PART_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential growth from `first` to at most `longest` seconds, with full jitter."""

    first: float = 1.0
    longest: float = 300.0

    def ceiling(self, failures: int) -> float:
        """The longest wait after this many failures (1 is the first)."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 62))

    def delay(self, failures: int, jitter: float) -> float:
        """The wait itself; `jitter` is uniform in [0, 1).

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
    on_park: Literal["continue", "hold"] = "continue"
    """Whether the key of a parked delivery goes on or waits."""


def decide(attempts: int, error: SinkError, policy: Policy, jitter: float) -> Outcome:
    """What becomes of a delivery that failed with `error` after `attempts` earlier failures."""
    match error:
        case Unsent():
            return Keep()
        case Unavailable(scope="part"):
            delay = policy.breaker.delay(_PART_FAILURES, jitter)
            return Retry(delay, error.reason, counted=False, uncertain=error.uncertain)
        case Unavailable():
            return Keep(uncertain=error.uncertain)
        case Permanent() if not error.uncertain:
            return Park(error.reason)
        case _ if attempts + 1 >= policy.max_retries and not error.uncertain:
            return Park(error.reason)
        case _:
            delay = policy.backoff.delay(attempts + 1, jitter)
            return Retry(delay, error.reason, uncertain=error.uncertain)


class Breaker:
    """Keeps deliveries back from what is down, and lets one probe through now and then.

    Closed: all pass. `trip` opens it. Once its wait is over, `admit` grants one probe, and
    refuses the rest until `close` or the next `trip`. Times are monotonic seconds given by the
    caller; a probe that is never answered is granted anew after `probe_timeout`.
    """

    def __init__(self, backoff: Backoff, *, probe_timeout: float = 30.0) -> None:
        self._backoff = backoff
        self._probe_timeout = probe_timeout
        self._failures = 0
        self._probing = False
        self._until = 0.0

    @property
    def open(self) -> bool:
        """Whether the last thing heard of it was a failure."""
        return self._failures > 0

    def admit(self, now: float) -> Literal["pass", "probe", "refuse"]:
        """Whether a batch may go out now, and how."""
        if not self.open:
            return "pass"
        if now < self._until:
            return "refuse"
        self._probing = True
        self._until = now + self._probe_timeout
        return "probe"

    def trip(self, now: float, jitter: float) -> float:
        """It failed: returns for how many seconds nothing is sent there.

        Zero if that was known: a batch that was on its way when it opened says nothing new.
        """
        if self.open and not self._probing and now < self._until:
            return 0.0
        self._probing = False
        self._failures += 1
        # Half fixed, half jittered: relays probe apart, and never at once.
        wait = self._backoff.ceiling(self._failures) * (1.0 - jitter / 2.0)
        self._until = now + wait
        return wait

    def forfeit(self, now: float) -> None:
        """The probe found nothing to send: grant it to the next who asks."""
        if self._probing:
            self._until = now

    def close(self) -> bool:
        """It works; returns whether that is news."""
        news = self.open
        self._failures = 0
        self._probing = False
        return news
