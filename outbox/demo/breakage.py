"""Takes a server or a relay away for some seconds, by SIGKILL, and tells what became of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

from outbox.demo.ending import Ending
from outbox.demo.ledger import Ledger
from outbox.demo.relays import Relays
from outbox.devstack import Server

_RECOVERY_SECONDS = 30.0
_LOOK_SECONDS = 0.05


class Breakage:
    """Knows what is away now, and what became of what was."""

    def __init__(
        self,
        servers: Mapping[str, Server],
        relays: Relays,
        ledgers: Mapping[str, Ledger],
        say: Callable[[str], None],
        end: Ending,
    ) -> None:
        self.away: dict[str, float] = {}
        """What is away, and when it comes back (monotonic)."""
        self.outcomes: list[str] = []
        """A sentence for each time."""
        self._under_way: set[str] = set()
        self._servers = servers
        self._relays = relays
        self._ledgers = ledgers
        self._say = say
        self._end = end

    @property
    def breakable(self) -> tuple[str, ...]:
        """The names of what can be taken away."""
        return (*self._servers, "relay")

    async def take_away(self, name: str, seconds: float) -> None:
        """Takes a server or a relay away, brings it back and waits until all is well again.

        Does nothing if that one is away already.
        """
        if name in self._under_way:
            return
        self._under_way.add(name)
        self.away[name] = monotonic() + seconds
        before = Counter(self._relays.happened)
        try:
            outcome = await (self._relay(seconds) if name == "relay" else self._server(name, seconds))
        finally:
            self._under_way.remove(name)
            self.away.pop(name, None)
        self._say(outcome)
        self.outcomes.append(f"{outcome}; {_counted(self._relays.happened - before)}")

    async def _server(self, name: str, seconds: float) -> str:
        server = self._servers[name]
        self._say(f"{name} is killed, and started again in {seconds:g} s")
        killed_at = monotonic()
        await server.kill()
        await self._end.wait(seconds)
        await server.start()
        del self.away[name]
        back_at = monotonic()
        self._say(f"{name} is back")
        took = await self._until(lambda: self._nothing_older(back_at))
        caught_up = "not caught up yet" if took is None else f"caught up {took:.1f} s later"
        return f"{name} was away for {back_at - killed_at:.1f} s, {caught_up}"

    async def _relay(self, seconds: float) -> str:
        victim = await self._relays.kill_one()
        self._say(f"{victim.name} is killed; the others take its lanes over when its leases end")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._replace(seconds))
            took = await self._until(lambda: self._relays.replaced(victim))
        lanes = "still have no owner" if took is None else f"had new owners after {took:.1f} s"
        return f"{victim.name} was killed, its lanes {lanes}"

    async def _replace(self, seconds: float) -> None:
        await self._end.wait(seconds)
        relay = await self._relays.start_one()
        del self.away["relay"]
        self._say(f"{relay.name} is there in its place")

    async def _until(self, condition: Callable[[], Awaitable[bool]]) -> float | None:
        """Waits for the condition; returns how many seconds it took, None if it took too long."""
        began = monotonic()
        while not await condition():
            if monotonic() - began > _RECOVERY_SECONDS:
                return None
            await asyncio.sleep(_LOOK_SECONDS)
        return monotonic() - began

    async def _nothing_older(self, moment: float) -> bool:
        return all((ledger.oldest or moment) >= moment for ledger in self._ledgers.values())


def _counted(happened: Counter[tuple[str, str]]) -> str:
    counts = [f"{sink} {what}: {count}" for (sink, what), count in happened.items()]
    return ", ".join(counts) or "no retry, no breaker opened"
