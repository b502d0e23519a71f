"""Who owns which lane: join the other relays, renew the leases, take or release to an even share.

Owns `outbox_lanes` and `outbox_relays`. Inside its lanes a relay is alone; what a pump does in them
is not known here. A lane leaves only once no pump works in it.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg

from outbox.clock import since_boot
from outbox.distribution import VERSION
from outbox.observe import emit
from outbox.relay.lane import Lane
from outbox.schema import LANES, in_schema
from outbox.settings import Settings

ALIVE = """
    INSERT INTO {schema}outbox_relays (relay_id, name, version, sinks, expires_at)
    VALUES ($1, $2, $3, $4, clock_timestamp() + $5::double precision * interval '1 second')
    ON CONFLICT (relay_id) DO UPDATE SET sinks = excluded.sinks, expires_at = excluded.expires_at
"""
COUNT = """
    SELECT sink, count(*)::integer FROM {schema}outbox_relays, unnest(sinks) AS sink
    WHERE expires_at > clock_timestamp() GROUP BY sink
"""
# With an epoch that no owner had before. Where a relay serves the sink already, somebody has deleted lanes
# that it may still send in, so nobody has them before a lease is over.
CREATE = f"""
    WITH served AS (
        SELECT sink, EXISTS (
            SELECT FROM {{schema}}outbox_relays r
            WHERE sink = ANY (r.sinks) AND r.expires_at > clock_timestamp()
        ) AS already
        FROM unnest($1::text[]) AS sink
    )
    INSERT INTO {{schema}}outbox_lanes (sink, lane, epoch, owner, expires_at)
    SELECT sink, lane, (1000000 * extract(epoch FROM clock_timestamp()))::bigint,
           CASE WHEN already THEN gen_random_uuid() END,
           CASE WHEN already THEN clock_timestamp() + $2::double precision * interval '1 second' END
    FROM served, generate_series(0, {LANES - 1}) AS lane
    ON CONFLICT DO NOTHING
"""
# A lease that ended is lost even where nobody took it: failures recorded meanwhile were refused,
# and a floor that passed them must be forgotten.
RENEW = """
    WITH mine AS (
        SELECT sink, lane FROM {schema}outbox_lanes
        WHERE owner = $1 AND expires_at > clock_timestamp() ORDER BY sink, lane FOR UPDATE
    )
    UPDATE {schema}outbox_lanes l
    SET expires_at = clock_timestamp() + $2::double precision * interval '1 second'
    FROM mine WHERE l.sink = mine.sink AND l.lane = mine.lane
    RETURNING l.sink, l.lane, l.epoch
"""
TAKE = """
    WITH free AS (
        SELECT sink, lane FROM {schema}outbox_lanes
        WHERE sink = $2 AND (owner IS NULL OR expires_at < clock_timestamp())
        ORDER BY random() LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    UPDATE {schema}outbox_lanes l
    SET owner = $1, epoch = epoch + 1,
        expires_at = clock_timestamp() + $4::double precision * interval '1 second'
    FROM free WHERE l.sink = free.sink AND l.lane = free.lane
    RETURNING l.lane, l.epoch
"""
RELEASE = """
    UPDATE {schema}outbox_lanes SET owner = NULL, expires_at = NULL
    WHERE owner = $1 AND sink = $2 AND lane = ANY ($3::text[]::smallint[])
"""
LEAVE = """
    WITH gone AS (DELETE FROM {schema}outbox_relays WHERE relay_id = $1)
    UPDATE {schema}outbox_lanes SET owner = NULL, expires_at = NULL WHERE owner = $1
"""
BURY = """
    DELETE FROM {schema}outbox_relays WHERE expires_at < clock_timestamp() - interval '1 day'
"""


@dataclass(slots=True)
class SinkLanes:
    """One sink's lanes that this relay owns, as its pumps see them."""

    sink: str
    nudged: asyncio.Event
    """Set when a lane that leaves can be released."""
    owned: dict[int, Lane] = field(default_factory=dict)
    leaving: set[int] = field(default_factory=set)
    deadline: float = 0.0
    """The time from which on another relay may own them: nothing may be on its way by then."""
    clock: Callable[[], float] = since_boot
    """What `deadline` is a time of."""
    _busy: set[int] = field(default_factory=set)

    @contextmanager
    def at_work(self, pump: int, pumps: int) -> Iterator[list[Lane]]:
        """Gives the lanes of one pump for one round; none of them is released within the block."""
        lanes = [
            lane
            for number, lane in self.owned.items()
            if number % pumps == pump and number not in self.leaving
        ]
        numbers = {lane.number for lane in lanes}
        self._busy |= numbers
        try:
            yield lanes
        finally:
            self._busy -= numbers
            if not self.leaving.isdisjoint(numbers):
                self.nudged.set()

    def countdown(self) -> Callable[[], float]:
        """Returns what tells how many seconds are left of the lease as it is now, whatever becomes of it."""
        deadline, clock = self.deadline, self.clock
        return lambda: deadline - clock()

    @property
    def releasable(self) -> list[int]:
        """The lanes that leave and in which no pump works any more."""
        return sorted(self.leaving - self._busy)

    def forget(self, numbers: Iterable[int]) -> None:
        """Drops lanes that this relay owns no longer."""
        for number in numbers:
            self.owned.pop(number, None)
            self.leaving.discard(number)


class Lanes:
    """This relay's leases on all its sinks, renewed and balanced by `tick`."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = since_boot) -> None:
        self.relay = uuid4()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.nudged = asyncio.Event()
        """A heartbeat now would change something: do not wait for the next."""
        self._settings = settings
        self._schema = settings.database_schema
        self._clock = clock
        self._all: dict[str, SinkLanes] = {}
        self._sinks: dict[str, SinkLanes] = {}
        self._withdrawn: set[str] = set()
        self._relays: dict[str, int] = {}
        """How many living relays serve each sink, as of the last heartbeat."""

    def of(self, sink: str) -> SinkLanes:
        """Returns the lanes of a sink; none are taken before `serve`."""
        return self._all.setdefault(sink, SinkLanes(sink, self.nudged, clock=self._clock))

    def serve(self, sink: str) -> None:
        """Takes a share of this sink's lanes from the next heartbeat on."""
        self._sinks[sink] = self.of(sink)
        self._withdrawn.discard(sink)
        self.nudged.set()

    def withdraw(self, sink: str) -> None:
        """Leaves this sink's lanes to other relays, from the next heartbeat on."""
        self._withdrawn.add(sink)
        self.nudged.set()

    def others(self, sink: str) -> int:
        """Returns how many other relays served this sink at the last heartbeat."""
        return self._relays.get(sink, 0) - (sink in self._sinks and sink not in self._withdrawn)

    async def join(self, connection: asyncpg.Connection) -> None:
        """Begins on a new connection, owning nothing: what was owned before is taken anew or not at all."""
        for lanes in self._sinks.values():
            lanes.forget(list(lanes.owned))
        await connection.execute(self._statement(LEAVE), self.relay)
        await connection.execute(self._statement(BURY))
        await self._create(connection, list(self._all))
        self.nudged.set()

    async def tick(self, connection: asyncpg.Connection) -> None:
        """Does one heartbeat: tells that we live, renews, then takes or releases towards an even share."""
        self.nudged.clear()
        sinks = dict(self._sinks)  # One that becomes ready meanwhile has its turn next time.
        lease = self._settings.lease_seconds
        serving = [sink for sink in sinks if sink not in self._withdrawn]
        await connection.execute(self._statement(ALIVE), self.relay, self.name, VERSION, serving, lease)
        await self._renew(connection, sinks)
        self._relays = dict(await connection.fetch(self._statement(COUNT)))
        for sink, lanes in sinks.items():
            share = math.ceil(LANES / max(1, self._relays.get(sink, 1))) if sink in serving else 0
            staying = [number for number in lanes.owned if number not in lanes.leaving]
            if len(staying) > share:
                lanes.leaving.update(staying[share:])
            elif len(staying) < share:
                await self._take(connection, lanes, share - len(staying))
            await self._release(connection, lanes)

    async def leave(self, connection: asyncpg.Connection) -> None:
        """Releases all lanes; the pumps must have ended."""
        await connection.execute(self._statement(LEAVE), self.relay)
        for lanes in self._sinks.values():
            if lanes.owned:
                emit("lanes.released", sink=lanes.sink, lanes=sorted(lanes.owned))
            lanes.forget(list(lanes.owned))

    async def _renew(self, connection: asyncpg.Connection, sinks: Mapping[str, SinkLanes]) -> None:
        # Read before asking: the lease cannot end earlier than counted from here.
        asked = self._clock()
        renewed: dict[str, list[Any]] = {sink: [] for sink in sinks}
        for record in await connection.fetch(
            self._statement(RENEW), self.relay, self._settings.lease_seconds
        ):
            renewed.setdefault(record["sink"], []).append(record)
        for sink, lanes in sinks.items():
            self._apply(lanes, renewed[sink])
            lanes.deadline = asked + self._settings.lease_seconds

    def _apply(self, lanes: SinkLanes, renewed: Sequence[Any]) -> None:
        epochs = {record["lane"]: record["epoch"] for record in renewed}
        lost = [number for number, lane in lanes.owned.items() if epochs.get(number) != lane.epoch]
        if lost:
            lanes.forget(lost)
            emit("lanes.lost", sink=lanes.sink, lanes=sorted(lost))
        # Whose taking was answered to nobody, or whose epoch somebody changed: nobody else can have them.
        found = epochs.keys() - lanes.owned.keys()
        if found:
            lanes.owned.update((number, Lane(number, epochs[number])) for number in found)
            emit("lanes.taken", sink=lanes.sink, lanes=sorted(found))

    async def _take(self, connection: asyncpg.Connection, lanes: SinkLanes, count: int) -> None:
        taken = await connection.fetch(
            self._statement(TAKE), self.relay, lanes.sink, count, self._settings.lease_seconds
        )
        for number, epoch in taken:
            lanes.owned[number] = Lane(number, epoch)
        if taken:
            emit("lanes.taken", sink=lanes.sink, lanes=sorted(number for number, _ in taken))
        if len(taken) < count:
            # They are still another's, or somebody has deleted them.
            await self._create(connection, [lanes.sink])

    async def _create(self, connection: asyncpg.Connection, sinks: Sequence[str]) -> None:
        await connection.execute(self._statement(CREATE), sinks, self._settings.lease_seconds)

    async def _release(self, connection: asyncpg.Connection, lanes: SinkLanes) -> None:
        numbers = lanes.releasable
        if numbers:
            # As text: smallint[] asyncpg would look up, in several statements, with jit off for the session.
            await connection.execute(
                self._statement(RELEASE), self.relay, lanes.sink, list(map(str, numbers))
            )
            lanes.forget(numbers)
            emit("lanes.released", sink=lanes.sink, lanes=numbers)

    def _statement(self, statement: str) -> str:
        return in_schema(statement, self._schema)
