"""Tells whether a relay does its work: by what it says itself, and by what the queue says of it.

Not ready: while it waits for the database or its schema, while it stops, and when it stalls: something
that could go out now has been in its lanes all the while, and nothing was settled, for
`stall_after_seconds`. A deep queue is no stall, nor is a broker that is down (its breaker is open):
the relay cannot mend that, and where it is a sidecar the service beside it would leave its load balancer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from outbox.errors import OutboxError
from outbox.observe import Health, SinkHealth
from outbox.operate import Depth, connect, depths
from outbox.settings import Settings

_FRESH_SECONDS = 2.0
_SHARE_OF_TIME = 0.05
_READ_SECONDS = 5.0


class Watched(Protocol):
    """What the probes ask of a relay."""

    def health(self) -> Health:
        """Returns how the relay is doing now, by what it knows itself; answers at once."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What one look at a relay found."""

    reasons: Sequence[str]
    """Why it is not ready; none if it is."""
    health: Health
    depths: Sequence[Depth] | None
    """What the queue holds; None where it could not be read."""


class CachedDepths:
    """What the database has in the queue, read when somebody asks and kept for a moment.

    The longer the count takes, the longer it is kept: counting takes a twentieth of the time at the most.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = monotonic) -> None:
        self.depths: list[Depth] | None = None
        """By sink and lane; None if it could not be read."""
        self.error = ""
        self.failing_since = 0.0
        """Monotonic time of the first of the failures, while there is an `error`."""
        self._settings = settings
        self._clock = clock
        self._fresh_until = 0.0
        self._reading = asyncio.Lock()

    async def refresh(self, health: Health) -> None:
        """Reads what the queue holds again, unless it is fresh."""
        async with self._reading:
            began = self._clock()
            if began < self._fresh_until:
                return
            down = [(each.sink, name) for each in health.sinks for name in each.open_breakers if name]
            try:
                async with asyncio.timeout(_READ_SECONDS), connect(self._settings) as connection:
                    self.depths, self.error = await depths(connection, down), ""
            except (OutboxError, TimeoutError) as error:
                self.failing_since = self.failing_since if self.error else began
                self.depths, self.error = None, str(error) or "it takes too long to answer"
            now = self._clock()
            self._fresh_until = now + max(_FRESH_SECONDS, (now - began) / _SHARE_OF_TIME)


class Stall:
    """Tells for how long each sink has had something to send, and nothing was settled.

    Counted from when it was first seen, so that what was held for an hour is no stall the moment it
    is released; and no longer than anything has been due, in case nobody looked for a while.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def seconds(self, sink: SinkHealth, depths: Iterable[Depth]) -> float:
        """Returns for how long this sink stalls on this relay; zero while it works or its breaker is open."""
        mine = [depth for depth in depths if depth.sink == sink.sink and depth.lane in sink.lanes]
        if None in sink.open_breakers or not any(depth.sendable for depth in mine):
            self._since.pop(sink.sink, None)
            return 0.0
        now = self._clock()
        due = max(depth.oldest_seconds or 0.0 for depth in mine)
        return min(now - self._since.setdefault(sink.sink, now), sink.quiet_seconds, due)


class Watcher:
    """Looks at one relay whenever somebody asks."""

    def __init__(self, relay: Watched, settings: Settings, clock: Callable[[], float] = monotonic) -> None:
        self._relay = relay
        self._after = settings.stall_after_seconds
        self._clock = clock
        self._queue = CachedDepths(settings, clock)
        self._stall = Stall(clock)

    async def look(self) -> Readiness:
        """Returns whether the relay is ready now, and why not."""
        health = self._relay.health()
        if health.stopping:
            return Readiness(["stopping"], health, None)
        if health.waiting_for is not None:
            why = f": {health.reason}" if health.reason else ""
            return Readiness([f"waiting for {health.waiting_for}{why}"], health, None)
        await self._queue.refresh(health)
        return Readiness(list(self._problems(health)), health, self._queue.depths)

    def _problems(self, health: Health) -> Iterator[str]:
        for sink in health.sinks:
            for failing in sink.failing:
                if failing.seconds > self._after:
                    yield f"{sink.sink}: pump {failing.pump} fails: {failing.reason}"
        if self._queue.depths is None:
            blind = self._clock() - self._queue.failing_since
            if blind > self._after:
                yield f"the queue could not be read for {blind:.0f} s: {self._queue.error}"
            return
        for sink in health.sinks:
            stalled = self._stall.seconds(sink, self._queue.depths)
            if stalled > self._after:
                yield f"{sink.sink} stalls: something is due for {stalled:.0f} s and nothing was sent"
