"""A relay moved by hand: the step-by-step seam for tests of holds, floors, fences and plans."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from outbox.clock import since_boot
from outbox.relay.batch import Request
from outbox.relay.breakers import Admission
from outbox.relay.lane import Lane
from outbox.relay.look_back import LookBack
from outbox.relay.parts import Parts
from outbox.relay.statements import FETCH
from outbox.relay.store import Store, relay_connection
from outbox.schema import in_schema
from tests.relay.traffic import SINK, settings_of
from tests.support.waiting import PATIENCE, until


@dataclass(frozen=True, slots=True)
class Plan:
    """What an explained statement did."""

    rows: int
    """How many it returned."""
    rows_read: int
    """How many it read from tables, those it did not want among them."""
    scans: frozenset[str]
    """How it read them."""

    @classmethod
    def of(cls, explained: str) -> Plan:
        top = json.loads(explained)[0]["Plan"]
        # A sequence has one row and no index.
        reads = [
            node for node in _nodes(top) if node.get("Relation Name", "outbox_id_seq") != "outbox_id_seq"
        ]
        return cls(
            top["Actual Rows"], sum(map(_rows_read, reads)), frozenset(node["Node Type"] for node in reads)
        )


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _rows_read(node: Mapping[str, Any]) -> int:
    removed = sum(count for name, count in node.items() if name.startswith("Rows Removed"))
    return int((node["Actual Rows"] + removed) * node["Actual Loops"])


class ByHand:
    """A relay with one pump per sink, of which each step is taken when the test says so."""

    def __init__(
        self,
        parts: Parts,
        connection: asyncpg.Connection,
        stores: Mapping[str, Store],
        connections: Mapping[str, asyncpg.Connection],
    ) -> None:
        self._parts = parts
        self._connection = connection
        self._stores = stores
        self._connections = connections

    @classmethod
    @asynccontextmanager
    async def made(
        cls,
        environment: Mapping[str, str],
        *,
        serving: Collection[str] | None = None,
        lease_seconds: float = 60.0,
        clock: Callable[[], float] = since_boot,
    ) -> AsyncIterator[ByHand]:
        """One that has joined, serves these sinks or all, and owns nothing yet.

        Its leases outlast a test that is slow between two heartbeats.
        """
        settings = settings_of(
            {**environment, "OUTBOX_PUMPS": "1", "OUTBOX_LEASE_SECONDS": str(lease_seconds)}
        )
        parts = Parts.of(settings, clock)
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(relay_connection(settings, "by hand"))
            connections = {
                served.name: await stack.enter_async_context(relay_connection(settings, "pump by hand"))
                for served in parts.served
            }
            stores = {
                name: Store(own, settings, name, parts.lanes.relay) for name, own in connections.items()
            }
            for served in parts.served:
                await served.sink.start()
                if serving is None or served.name in serving:
                    parts.lanes.serve(served.name)
            await parts.lanes.join(connection)
            await parts.maintenance.published.begin(connection)
            await parts.maintenance.published.follow(connection, asyncio.Event())
            yield cls(parts, connection, stores, connections)

    def lane(self, number: int, sink: str = SINK) -> Lane:
        """A lane that it owns."""
        return self._parts.lanes.of(sink).owned[number]

    def request(self, sink: str = SINK, down: Collection[str] = ()) -> Request:
        """What its pump would ask for now."""
        lanes = list(self._parts.lanes.of(sink).owned.values())
        return self._parts.pumps[sink][0].request(lanes, Admission(down=frozenset(down)))

    @property
    def id(self) -> UUID:
        """Who owns its lanes."""
        return self._parts.lanes.relay

    @property
    def owned(self) -> set[int]:
        """The lanes that it owns."""
        return set(self._parts.lanes.of(SINK).owned)

    def serve(self, sink: str) -> None:
        """Its lanes are taken from the next heartbeat on."""
        self._parts.lanes.serve(sink)

    async def is_blocked(self, observer: asyncpg.Connection) -> bool:
        """Whether its heartbeat waits for a lock."""
        pid = self._connection.get_server_pid()
        found: bool = await observer.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid)
        return found

    async def beat(self) -> None:
        """One heartbeat."""
        await self._parts.lanes.tick(self._connection)

    async def turn(self, sink: str = SINK) -> int:
        """One round of its pump; returns how many deliveries were settled."""
        rows, _ = await self._parts.pumps[sink][0].round(self._stores[sink])
        return rows

    async def work(self, sink: str = SINK) -> int:
        """Rounds until one settles nothing, with heartbeats; returns how many deliveries were settled."""
        total = 0
        while rows := await self.turn(sink):
            total += rows
            await self.beat()
        return total

    async def leave(self) -> None:
        """Give all lanes back."""
        await self._parts.lanes.leave(self._connection)

    @property
    def open_breakers(self) -> frozenset[str | None]:
        """What it keeps back from."""
        return self._parts.served[0].breakers.open

    @property
    def in_vain(self) -> tuple[float, str]:
        """For how long nothing has come of what it tried, and why."""
        return self._parts.served[0].progress.in_vain()

    async def look_back(self, sink: str = SINK) -> None:
        """Walk below all floors."""
        step = self.looking_back(sink)
        for _ in range(2 + 2 * len(self._parts.pumps[sink][0]._lines.apart)):
            await step()

    def looking_back(self, sink: str = SINK) -> Callable[[], Awaitable[None]]:
        """What takes the next step of walks below all floors, which follow one another, each time."""
        look_back = LookBack(every_seconds=0.0, step_seconds=0.0)

        def step() -> Awaitable[None]:
            lanes = list(self._parts.lanes.of(sink).owned.values())
            return look_back.step(self._stores[sink], lanes, self._parts.pumps[sink][0]._lines.apart)

        return step

    async def prepare_fetch(self, sink: str = SINK, *, down: Collection[str] = ()) -> None:
        """Prepare its pump's fetch and run it once, so that its plan is made now."""
        connection = self._connections[sink]
        await connection.execute(f"PREPARE the_fetch AS {in_schema(FETCH, None)}")
        await connection.execute(f"EXECUTE the_fetch {self._values(sink, down)}")

    async def explain_fetch(self, sink: str = SINK, *, down: Collection[str] = ()) -> Plan:
        """What the prepared fetch would do now, where these destinations are down."""
        statement = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE the_fetch {self._values(sink, down)}"
        return Plan.of(await self._connections[sink].fetchval(statement))

    async def ask(self, statement: str, *values: Any, sink: str = SINK) -> list[Any]:
        """Run a statement as its pump would."""
        return await self._stores[sink].run(statement, *values)

    def statements_of_the_pump(self, sink: str = SINK) -> list[str]:
        """A list that grows by each statement of its pump from now on."""
        seen: list[str] = []
        self._connections[sink].add_query_logger(lambda query: seen.append(query.query))
        return seen

    def _values(self, sink: str, down: Collection[str]) -> str:
        request = self.request(sink, down)
        return f"({', '.join(map(_literal, request.values(sink)))})"


def _literal(value: object) -> str:
    """A parameter as a literal without a type; none of them holds a quote."""
    if isinstance(value, list):
        return f"'{{{', '.join('NULL' if each is None else str(each) for each in value)}}}'"
    return f"'{value}'"


async def is_idle(connection: asyncpg.Connection, *, after: str) -> bool:
    """Whether a pump moved by hand has its answer to such a statement."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pump by hand'"
        " AND datname = current_database() AND state = 'idle' AND query LIKE '%' || $1 || '%')",
        after,
    )
    return found


async def delivered(
    relay: ByHand, connection: asyncpg.Connection, *, but: int = 0, deadline: float = PATIENCE
) -> None:
    """Take turns until no more than so many deliveries are left in the queue."""

    async def done() -> bool:
        await relay.beat()
        await relay.turn()
        left: int = await connection.fetchval("SELECT count(*) FROM outbox_queue")
        return left <= but

    await until(done, deadline=deadline)
