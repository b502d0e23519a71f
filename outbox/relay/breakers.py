"""What one sink's pumps keep back from: the sink as a whole, or single destinations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import random
from time import monotonic
from typing import Literal

from outbox.observe import emit
from outbox.policy import Backoff

_MOST_OPEN = 64
"""So many breakers of one sink at most, since each pump walks past what waits behind them."""
_MOST_PARTS = 256
_IDLE_SECONDS = 10.0
"""For how long at least it counts that a pump had nothing to send: another that fails never says so."""


class Breaker:
    """Keeps deliveries back from what is down, and lets one probe through now and then.

    Closed: all pass. `trip` opens it. Once its wait is over, `admit` grants one probe, and
    refuses the rest until `close` or the next `trip`. Times are monotonic seconds given by the
    caller; a probe that is never answered is granted anew after `probe_timeout`.
    """

    def __init__(self, backoff: Backoff, *, probe_timeout: float = 30.0, failures: int = 0) -> None:
        self._backoff = backoff
        self._probe_timeout = probe_timeout
        self._failures = failures
        self._probing = False
        self._until = 0.0

    @property
    def failures(self) -> int:
        """How often in a row it has failed."""
        return self._failures

    @property
    def open(self) -> bool:
        """True if the last thing heard of it was a failure."""
        return self._failures > 0

    def admit(self, now: float) -> Literal["pass", "probe", "refuse"]:
        """Decides how a batch may go out now: as any, as the one probe, or not."""
        if not self.open:
            return "pass"
        if now < self._until:
            return "refuse"
        self._probing = True
        self._until = now + self._probe_timeout
        return "probe"

    def trip(self, now: float, jitter: float) -> float:
        """Takes note of a failure; returns for how many seconds nothing is sent there.

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
        """Gives a probe back that found nothing to send: the next who asks gets it."""
        if self._probing:
            self._until = now

    def close(self) -> bool:
        """Takes note of a success; returns True if it was open before."""
        news = self.open
        self._failures = 0
        self._probing = False
        return news


@dataclass(frozen=True, slots=True)
class Admission:
    """What a round of a pump may send."""

    refused: bool = False
    """Nothing at all: the sink is down."""
    probing: bool = False
    """One delivery, to see whether the sink is back."""
    down: frozenset[str] = frozenset()
    """Nothing to these destinations."""
    probes: frozenset[str] = frozenset()
    """At most one delivery to each of these."""

    @property
    def probed(self) -> frozenset[str | None]:
        """What the round probes; None stands for the whole sink."""
        return self.probes | {None} if self.probing else self.probes


class SinkBreakers:
    """The breakers of one sink, shared by its pumps; None stands for the sink as a whole.

    One ends with its reason: when something arrives, or when no pump has anything left to send there.
    """

    def __init__(
        self,
        sink: str,
        backoff: Backoff,
        *,
        pumps: int,
        clock: Callable[[], float] = monotonic,
        jitter: Callable[[], float] = random,
    ) -> None:
        self._sink = sink
        self._backoff = backoff
        self._pumps = pumps
        self._memory = 2 * backoff.longest
        self._clock = clock
        self._jitter = jitter
        self._breakers: dict[str | None, Breaker] = {}
        self._idle: dict[str | None, dict[int, float]] = {}
        """The pumps that had nothing to send since the breaker opened, and until when that counts."""
        self._past: dict[str, tuple[int, float]] = {}
        """How often destinations had failed that are back, and until when that still counts."""
        self._opened: dict[str | None, tuple[float, str]] = {}
        """When those that are open opened, and why they last stayed so."""
        self.down_reason = ""
        """Why the sink as a whole was down when it last was."""
        self._parts: dict[tuple[str | None, str | None], tuple[int, float]] = {}
        """How often parts of destinations failed in a row, and until when retries of the last time come."""

    @property
    def open(self) -> frozenset[str | None]:
        """The destinations that are kept back from now; None stands for the whole sink."""
        return frozenset(self._breakers)

    @property
    def down_seconds(self) -> float:
        """For how long the sink as a whole has been down; zero while it is not."""
        return self._clock() - self._opened[None][0] if None in self._breakers else 0.0

    def reasons(self) -> dict[str | None, tuple[float, str]]:
        """Returns for how many seconds which have been open, and why; None stands for the whole sink."""
        now = self._clock()
        return {name: (now - since, reason) for name, (since, reason) in self._opened.items()}

    def may_open(self, destination: str | None, others: int) -> bool:
        """Whether there is a breaker for it beside so many others that open now: their number is bounded."""
        known = destination is None or destination in self._breakers
        return known or len(self._breakers) + others < _MOST_OPEN

    @contextmanager
    def admission(self, pump: int) -> Iterator[Admission]:
        """Gives what the round of a pump in this block may send.

        A probe that the round leaves unanswered goes to the next one.
        """
        granted = self._admit(pump, self._clock())
        try:
            yield granted
        finally:
            for name in granted.probed:
                if breaker := self._breakers.get(name):
                    breaker.forfeit(self._clock())

    def _admit(self, pump: int, now: float) -> Admission:
        whole = self._ask(None, pump, now) if None in self._breakers else "pass"
        if whole == "refuse":
            return Admission(refused=True)
        said = {name: self._ask(name, pump, now) for name in self._breakers if name is not None}
        return Admission(
            probing=whole == "probe",
            down=frozenset(name for name, answer in said.items() if answer == "refuse"),
            probes=frozenset(name for name, answer in said.items() if answer == "probe"),
        )

    def _ask(self, name: str | None, pump: int, now: float) -> Literal["pass", "probe", "refuse"]:
        # Who had nothing to send leaves the probe to the others.
        return "refuse" if now < self._idle[name].get(pump, 0.0) else self._breakers[name].admit(now)

    def trip(self, destination: str | None, reason: str) -> None:
        """Opens the breaker of a destination, or of the sink (None), for a while."""
        if destination is None:
            self.down_reason = reason
        since, _ = self._opened.get(destination, (self._clock(), ""))
        self._opened[destination] = since, reason
        breaker = self._breakers.get(destination)
        if breaker is None:
            failures, until = self._past.pop(destination or "", (0, 0.0))
            failures = failures if self._clock() < until else 0
            breaker = self._breakers[destination] = Breaker(self._backoff, failures=failures)
        if wait := breaker.trip(self._clock(), self._jitter()):
            self._idle[destination] = {}
            emit("breaker.opened", sink=self._sink, destination=destination, reason=reason, wait=wait)

    def close(self, destination: str | None, reason: str = "it is back") -> None:
        """Closes the breaker of a destination, or of the sink (None)."""
        if breaker := self._breakers.pop(destination, None):
            del self._idle[destination], self._opened[destination]
            self._remember(destination, breaker.failures)
            emit("breaker.closed", sink=self._sink, destination=destination, reason=reason)

    def _remember(self, destination: str | None, failures: int) -> None:
        """Remembers for a while how often it failed: where only parts work, it soon fails again."""
        if destination is not None:
            if len(self._past) >= _MOST_PARTS:
                self._past.clear()
            self._past[destination] = failures, self._clock() + self._backoff.ceiling(failures)

    def part_failed(self, destination: str, part: str | None, reason: str) -> int:
        """Takes note that a part of a destination is down; returns how often in a row it was.

        What fails while the retries of the last time are still to come says nothing new.
        """
        now = self._clock()
        place = self._place(destination, part, now)
        failures, until = self._parts.get(place, (0, 0.0))
        if now >= until:
            failures = failures + 1 if now < until + self._memory else 1
            wait = self._backoff.ceiling(failures)
            self._parts[place] = failures, now + wait
            name, part = place
            emit("part.failed", sink=self._sink, destination=name, part=part, reason=reason, wait=wait)
        return failures

    def _place(self, destination: str, part: str | None, now: float) -> tuple[str | None, str | None]:
        """Returns under which name to remember a part: beyond some hundred all are one."""
        place = destination, part
        if place not in self._parts and len(self._parts) >= _MOST_PARTS:
            self._parts = {key: known for key, known in self._parts.items() if now < known[1] + self._memory}
        return place if place in self._parts or len(self._parts) < _MOST_PARTS else (None, None)

    def found_nothing(self, destination: str | None, pump: int) -> None:
        """Takes note that a pump has nothing left to send there; where none has, the breaker ends."""
        if destination in self._breakers:
            now, idle = self._clock(), self._idle[destination]
            idle[pump] = now + max(_IDLE_SECONDS, self._backoff.longest)
            if sum(now < until for until in idle.values()) >= self._pumps:
                self.close(destination, "nothing is left to send there")
