"""One campaign: writers write, faults come by chance, all is healed, and what arrived is compared."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from time import monotonic

import asyncpg

from outbox import operate
from outbox.operate import Selection
from outbox.settings import load
from tests.faults.arrivals import Findings, compare
from tests.faults.kinds import Kind
from tests.faults.place import Place
from tests.faults.writing import DISTURBED, GOOD, write_on
from tests.support.waiting import until

_WRITERS = 6
_RELAYS = 3
_AT_ONCE = 2
"""Faults that may overlap."""
_LONGEST_CALM_SECONDS = 3.0
_HEALING_SECONDS = 300.0

Say = Callable[[str], None]


@dataclass
class Campaign:
    """What one run does, and what it has done so far."""

    place: Place
    random: Random
    say: Say
    kinds: Mapping[str, Kind]
    done: Counter[str] = field(default_factory=Counter)
    turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def run(self, seconds: float) -> Findings:
        """Lets things happen for so long, heals, waits until all has gone out, and compares."""
        over = asyncio.Event()
        for number in range(_RELAYS):
            await self.place.start_relay(of_first_release=bool(self.place.beside) and number == 0)
        for relay in self.place.relays:
            await relay.event("relay.ready")
        async with asyncio.TaskGroup() as group:
            for number in range(_WRITERS):
                chance = Random(self.random.random())  # noqa: S311 - chance in tests
                group.create_task(write_on(self.place.database, f"writer-{number}", chance, over))
            faults = [group.create_task(self._faults(monotonic() + seconds)) for _ in range(_AT_ONCE)]
            await asyncio.wait(faults)
            over.set()
        self.say(f"{self.done.total()} faults; waiting until all has gone out")
        connection = await asyncpg.connect(self.place.database)
        try:
            await until(lambda: self._is_done(connection), deadline=_HEALING_SECONDS)
            await self.place.stop_relays()
            return await compare(self.place, connection)
        finally:
            connection.terminate()

    async def _faults(self, end: float) -> None:
        while monotonic() < end:
            await asyncio.sleep(self.random.random() * _LONGEST_CALM_SECONDS)
            free = [name for name, kind in self.kinds.items() if not self.turns[kind.what].locked()]
            name = self.random.choice(free)
            kind = self.kinds[name]
            async with self.turns[kind.what]:
                self.done[name] += 1
                self.say(name)
                try:
                    await kind.do(self.place, self.random)
                except DISTURBED as error:
                    # Another fault had taken what it needs.
                    self.say(f"{name}: {error!r}")

    async def _is_done(self, connection: asyncpg.Connection) -> bool:
        if self.place.touched:
            await self._mend()
        left: int = await connection.fetchval(
            "SELECT count(*) FROM outbox_queue JOIN outbox USING (id) WHERE type = $1 AND parked_at IS NULL",
            GOOD,
        )
        return left == 0

    async def _mend(self) -> None:
        """What an operator does after a hand: what does not fit together, and what that had parked."""
        settings = load(self.place.environment, self.place.folder / ".env")
        async with operate.connect(settings) as operator:
            await operate.repair(operator)
            await operate.retry(operator, Selection(type=GOOD))
