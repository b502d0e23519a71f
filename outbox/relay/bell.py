"""Wakes pumps that wait: one look for all of them at what was written last.

A pump that finds nothing looks ever more rarely, since each look walks its lanes. This one reads a few ids,
so it can be had every few milliseconds: at once where a writer wakes the relay after its commit. What it
misses (a row that was long uncommitted, one that somebody changed by hand, one whose time has come) a pump
finds by its own looks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from time import monotonic

import asyncpg

from outbox.relay.waiting import wait_for
from outbox.schema import in_schema
from outbox.schema.waking import CHANNEL, WAKE

_LEAST_SECONDS = 0.002
"""Between two looks, whoever wakes."""
_SOON_SECONDS = 0.005
"""Between two looks, for a second after something was written of which nobody told."""
_SOON_FOR_SECONDS = 1.0
_HEARING_SECONDS = 5.0
"""How long a notification may take that is heard at all."""
_REST = 9
"""It pauses so many times as long as a look took: a tenth of a core at most, on a busy machine too."""
_LOOKS = 8
"""For so many looks an id is waited for that a later one has overtaken: its transaction was still open."""
_NEWEST = 256
"""More is not looked at: of a million rows that are not committed yet, each look would visit all."""

WRITTEN = f"""
    SELECT newest.last_value, written.id, written.sink, written.lane
    FROM {{schema}}outbox_id_seq AS newest
    LEFT JOIN LATERAL (
        SELECT o.id, o.sink, o.lane FROM {{schema}}outbox o
        WHERE o.id > greatest($1, newest.last_value - {_NEWEST}) ORDER BY o.id
    ) AS written ON true
"""
"""The newest id that was drawn, and what can be seen above an id."""


class Sleeper:
    """What waits until it is woken, or a time is over."""

    def __init__(self) -> None:
        self.waits = False
        """True while it does."""
        self.watched = False
        """True while a bell tells it of what is written."""
        self._woken = asyncio.Event()
        self._lanes: set[int] = set()

    def wake(self, lane: int | None = None) -> None:
        """Lets it wait no longer, or not the next time; for something in this lane, if one is given."""
        if lane is not None:
            self._lanes.add(lane)
        self._woken.set()

    async def sleep(self, seconds: float) -> Collection[int]:
        """Waits; not at all, but for giving others a turn, where it is to be for no time.

        Returns the lanes that it was woken for; none: it is to look everywhere.
        """
        if not seconds:
            await asyncio.sleep(0)
            return ()
        self.waits = True
        try:
            await wait_for(self._woken, seconds)
        finally:
            self.waits = False
            self._woken.clear()
            lanes, self._lanes = self._lanes, set()
        return lanes


class News:
    """Which of the rows that a look has seen are new. Pure."""

    def __init__(self) -> None:
        self._floors = deque([0], maxlen=_LOOKS)
        self._heard: frozenset[int] = frozenset()

    @property
    def floor(self) -> int:
        """The id above which to look."""
        return self._floors[0]

    def learn(self, last_id: int, rows: Iterable[tuple[int, str, int]]) -> Sequence[tuple[str, int]]:
        """Returns the sink and lane of each row that no look before has seen."""
        if last_id < self._floors[-1]:  # Ids are given anew.
            self._floors = deque([0], maxlen=_LOOKS)
        found = {id_: (sink, lane) for id_, sink, lane in rows}
        self._floors.append(max(found, default=self._floors[-1]))
        heard, self._heard = self._heard, frozenset(found)
        return [where for id_, where in found.items() if id_ not in heard]


class Bell:
    """Wakes the sleeper of each lane in which something was written."""

    def __init__(
        self, schema: str | None, sleepers: Mapping[str, Sequence[Sleeper]], *, longest: float
    ) -> None:
        self._schema = schema
        self._statement = in_schema(WRITTEN, schema)
        self._sleepers = sleepers
        """By sink; a lane is its number's modulo their count."""
        self._longest = longest
        """Seconds between two looks in silence."""
        self._all = [sleeper for each in sleepers.values() for sleeper in each]
        self._rung = asyncio.Event()

    def wake_all(self) -> None:
        """Wakes all of them."""
        for sleeper in self._all:
            sleeper.wake()

    async def listen(self, connection: asyncpg.Connection, other: asyncpg.Connection) -> bool:
        """Hears on a connection who wakes the relay; returns whether it heard what another one told it."""
        channel = await connection.fetchval(f"SELECT {in_schema(CHANNEL, self._schema)}")
        await connection.add_listener(channel, lambda *_: self._rung.set())
        self._rung.clear()
        await other.execute(f"SELECT {in_schema(WAKE, self._schema)}")
        await wait_for(self._rung, _HEARING_SECONDS)
        return self._rung.is_set()

    async def run(self, connection: asyncpg.Connection, ending: asyncio.Event) -> None:
        """Looks until `ending`, while anybody waits."""
        news, found = News(), monotonic()
        try:
            while not ending.is_set():
                began, told = monotonic(), self._rung.is_set()
                if any(sleeper.waits for sleeper in self._all):
                    self._rung.clear()
                    if await self._look(connection, news) and not told:
                        found = began
                self._watch(watched=True)
                now = monotonic()
                await asyncio.sleep(max(_LEAST_SECONDS, _REST * (now - began)))
                if not self._rung.is_set():
                    soon = now - found < _SOON_FOR_SECONDS
                    await wait_for(self._rung, _SOON_SECONDS if soon else self._longest)
        finally:
            self._watch(watched=False)

    def _watch(self, *, watched: bool) -> None:
        for sleeper in self._all:
            sleeper.watched = watched

    async def _look(self, connection: asyncpg.Connection, news: News) -> bool:
        """Looks once; returns whether anything was new."""
        rows = await connection.fetch(self._statement, news.floor)
        written = ((id_, sink, lane) for _, id_, sink, lane in rows if id_ is not None)
        new = news.learn(rows[0][0], written)
        for sink, lane in new:
            if sleepers := self._sleepers.get(sink):
                sleepers[lane % len(sleepers)].wake(lane)
        return bool(new)
