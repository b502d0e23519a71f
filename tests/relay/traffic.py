"""Writing for the gated sink, a relay moved by hand, and what must be true of what arrived."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg

from outbox import operate
from outbox.operate import Selection
from outbox.relay import Relay
from outbox.relay.lanes import Lane
from outbox.relay.store import Store, connect
from outbox.settings import Settings, load
from outbox.testing import Attempt, Gate
from tests.support.kafka import Topics
from tests.support.waiting import until

SINK = "gated"
TOPIC = "slots"

QUICK = {
    "OUTBOX_LEASE_SECONDS": "2",
    "OUTBOX_HEARTBEAT_SECONDS": "0.2",
    "OUTBOX_SEND_TIMEOUT_SECONDS": "1",
    "OUTBOX_POLL_INTERVAL_SECONDS": "0.02",
    "OUTBOX_ERROR_RETRY_INTERVAL_SECONDS": "0.05",
    "OUTBOX_BREAKER_LONGEST_SECONDS": "0.1",
}
"""A relay that is quick in everything, so that a test need not wait for it."""

_WRITE = """
    INSERT INTO outbox (message_id, type, sink, destination, key, payload, available_at, expires_at)
    SELECT gen_random_uuid(), 't.happened', $1, $2, key, $4,
           clock_timestamp() + $5 * interval '1 second', clock_timestamp() + $6 * interval '1 second'
    FROM unnest($3::text[]) WITH ORDINALITY AS given (key, position) ORDER BY position
    RETURNING id
"""


async def write(
    connection: asyncpg.Connection,
    keys: Iterable[str | None],
    *,
    sink: str = SINK,
    destination: str = TOPIC,
    **more: Any,
) -> list[int]:
    """One delivery for each key, in this order, by one statement; returns their ids.

    There may be `payload`, and `available_in` and `expires_in` in seconds from now.
    """
    more = {"payload": b"{}", "available_in": None, "expires_in": None} | more
    records = await connection.fetch(_WRITE, sink, destination, list(keys), *more.values())
    return [record["id"] for record in records]


def settings_of(environment: Mapping[str, str]) -> Settings:
    return load(environment, Path("/nonexistent/.env"))


async def emptied(connection: asyncpg.Connection, *, deadline: float = 30.0, but: int = 0) -> None:
    """Return once the queue holds no more than so many deliveries."""

    async def is_empty() -> bool:
        left: int = await connection.fetchval("SELECT count(*) FROM outbox_queue")
        return left <= but

    await until(is_empty, deadline=deadline)


async def arrived(gate: Gate, count: int, *, deadline: float = 20.0) -> None:
    """Return once at least so many deliveries arrived, what arrived twice counted twice."""

    async def have() -> bool:
        return len(gate.arrived) >= count

    await until(have, deadline=deadline)


def first_sends(attempts: Iterable[Attempt]) -> dict[tuple[str, str], list[int]]:
    """What arrived of each destination and key, each id where it arrived first."""
    found: dict[tuple[str, str], dict[int, None]] = defaultdict(dict)
    for attempt in attempts:
        if attempt.arrived and attempt.key is not None:
            found[attempt.destination, attempt.key].setdefault(attempt.id)
    return {key: list(ids) for key, ids in found.items()}


def inversions(attempts: Iterable[Attempt]) -> list[tuple[int, int]]:
    """Pairs of ids of one key of which the higher arrived first before the lower did."""
    return [
        (before, after)
        for ids in first_sends(attempts).values()
        for before, after in pairwise(ids)
        if before > after
    ]


def unexplained(attempts: Sequence[Attempt], crashed: Collection[int]) -> list[Attempt]:
    """What arrived and was sent again all the same, though no crash and no uncertain answer says why."""
    last = {attempt.id: place for place, attempt in enumerate(attempts) if attempt.arrived}
    return [
        attempt
        for place, attempt in enumerate(attempts)
        if attempt.arrived
        and place != last[attempt.id]
        and attempt.answer == "sent"
        and attempt.pid not in crashed
    ]


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

    def __init__(self, relay: Relay, connection: asyncpg.Connection, stores: Mapping[str, Store]) -> None:
        self._relay = relay
        self._connection = connection
        self._stores = stores

    @classmethod
    @asynccontextmanager
    async def made(
        cls,
        environment: Mapping[str, str],
        *,
        serving: Collection[str] | None = None,
        lease_seconds: float = 60.0,
    ) -> AsyncIterator[ByHand]:
        """One that has joined, serves these sinks or all, and owns nothing yet.

        Its leases outlast a test that is slow between two heartbeats.
        """
        settings = settings_of(
            {**environment, "OUTBOX_PUMPS": "1", "OUTBOX_LEASE_SECONDS": str(lease_seconds)}
        )
        relay = Relay(settings)
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(connect(settings, "by hand"))
            stores = {}
            for served in relay._served:
                own = await stack.enter_async_context(connect(settings, "pump by hand"))
                stores[served.name] = Store(own, settings, served.name, relay._lanes.relay)
                await served.sink.start()
                if serving is None or served.name in serving:
                    relay._lanes.serve(served.name)
            await relay._lanes.join(connection)
            await relay._maintenance.publish_settings(connection)
            yield cls(relay, connection, stores)

    def lane(self, number: int, sink: str = SINK) -> Lane:
        """A lane that it owns."""
        return self._relay._lanes.of(sink).owned[number]

    @property
    def owned(self) -> set[int]:
        """The lanes that it owns."""
        return set(self._relay._lanes.of(SINK).owned)

    def serve(self, sink: str) -> None:
        """Its lanes are taken from the next heartbeat on."""
        self._relay._lanes.serve(sink)

    async def is_blocked(self, observer: asyncpg.Connection) -> bool:
        """Whether its heartbeat waits for a lock."""
        pid = self._connection.get_server_pid()
        found: bool = await observer.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid)
        return found

    async def beat(self) -> None:
        """One heartbeat."""
        await self._relay._lanes.tick(self._connection)

    async def turn(self, sink: str = SINK) -> int:
        """One round of its pump; returns how many deliveries were settled."""
        rows, _ = await self._relay._pumps[sink][0]._round(self._stores[sink])
        return rows

    async def prepare_fetch(self, sink: str = SINK) -> None:
        """Prepare its pump's fetch and run it once, so that its plan is made now."""
        store = self._stores[sink]
        await store._connection.execute(f"PREPARE the_fetch AS {store._sql.fetch}")
        await store._connection.execute(f"EXECUTE the_fetch {self._arguments(sink)}")

    async def explain_fetch(self, sink: str = SINK) -> Plan:
        """What the prepared fetch would do now."""
        statement = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE the_fetch {self._arguments(sink)}"
        return Plan.of(await self._stores[sink]._connection.fetchval(statement))

    async def ask(self, statement: str, *values: Any, sink: str = SINK) -> list[Any]:
        """Run a statement as its pump would."""
        return await self._stores[sink]._run(statement, *values)

    def statements_of_the_pump(self, sink: str = SINK) -> list[str]:
        """A list that grows by each statement of its pump from now on."""
        seen: list[str] = []
        self._stores[sink]._connection.add_query_logger(lambda query: seen.append(query.query))
        return seen

    def _arguments(self, sink: str) -> str:
        lanes = self._relay._lanes.of(sink).owned.values()
        numbers, floors = [lane.number for lane in lanes], [lane.floor for lane in lanes]
        holds_ended = self._relay._pumps[sink][0]._holds_ended
        return f"('{sink}', ARRAY{numbers}, ARRAY{floors}, 2000, 4000000, '{{}}', {holds_ended})"

    async def leave(self) -> None:
        """Give all lanes back."""
        await self._relay._lanes.leave(self._connection)

    async def work(self, sink: str = SINK) -> int:
        """Rounds until one settles nothing, with heartbeats; returns how many deliveries were settled."""
        total = 0
        while rows := await self.turn(sink):
            total += rows
            await self.beat()
        return total


async def lane_of(connection: asyncpg.Connection, id_: int) -> int:
    lane: int = await connection.fetchval("SELECT lane FROM outbox WHERE id = $1", id_)
    return lane


async def state(connection: asyncpg.Connection, id_: int) -> Any:
    """Its row of the view `outbox_state`."""
    return await connection.fetchrow("SELECT * FROM outbox_state WHERE id = $1", id_)


async def is_idle(connection: asyncpg.Connection, *, after: str) -> bool:
    """Whether a pump moved by hand has its answer to such a statement."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pump by hand'"
        " AND datname = current_database() AND state = 'idle' AND query LIKE '%' || $1 || '%')",
        after,
    )
    return found


async def delivered(
    relay: ByHand, connection: asyncpg.Connection, *, but: int = 0, deadline: float = 20.0
) -> None:
    """Take turns until no more than so many deliveries are left in the queue."""

    async def done() -> bool:
        await relay.beat()
        await relay.turn()
        left: int = await connection.fetchval("SELECT count(*) FROM outbox_queue")
        return left <= but

    await until(done, deadline=deadline)


async def assert_all_in_order(connection: asyncpg.Connection, sink: str, told: list[str]) -> None:
    """What a consumer heard, message by message: all that was written, and each key in its order."""
    written = {
        str(row["message_id"]): row
        for row in await connection.fetch("SELECT * FROM outbox WHERE sink = $1 ORDER BY id", sink)
    }
    assert set(told) == written.keys()
    arrivals = [
        Attempt(row["id"], message_id, row["destination"], row["key"], arrived=True, answer="sent", pid=0)
        for message_id in told
        for row in [written[message_id]]
    ]
    assert inversions(arrivals) == []


async def heard(connection: asyncpg.Connection, topics: Topics, topic: str) -> list[int]:
    """The ids of what is in a topic of one partition, in its order, what is there twice once."""
    ids = {str(row["message_id"]): row["id"] for row in await connection.fetch("SELECT * FROM outbox")}
    told = [record.headers["message_id"].decode() for record in await topics.read(topic)]
    return [ids[message_id] for message_id in dict.fromkeys(told)]


async def skip(environment: Mapping[str, str], *ids: int) -> None:
    """Give deliveries up, as an operator does."""
    async with operate.connect(settings_of(environment)) as operator:
        await operate.skip(operator, Selection(ids=ids))


async def retry(environment: Mapping[str, str], *ids: int) -> None:
    """Try deliveries again, as an operator does."""
    async with operate.connect(settings_of(environment)) as operator:
        await operate.retry(operator, Selection(ids=ids))
