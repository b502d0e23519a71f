"""The floor: it spares the pump what is done, and hides nothing of what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from outbox.relay import Relay
from outbox.testing import Gate
from tests.relay.by_hand import ByHand
from tests.relay.traffic import SINK, TOPIC, emptied, inversions, lane_of, settings_of, write
from tests.support import sql
from tests.support.postgres import Cluster


@pytest.fixture
async def database(every_postgres: Cluster) -> AsyncIterator[str]:
    async with every_postgres.database(template=await every_postgres.template()) as url:
        yield url


@asynccontextmanager
async def open_transaction(url: str, *, keeps_snapshot: bool = False) -> AsyncIterator[asyncpg.Connection]:
    """A session in a transaction, which the test commits or which is rolled back."""
    async with sql.connection(url) as session:
        await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ" if keeps_snapshot else "BEGIN")
        yield session


async def test_what_took_a_lower_id_and_commits_later_is_delivered(
    by_hand: ByHand, connection: asyncpg.Connection, database: str, gate: Gate
) -> None:
    async with open_transaction(database) as slow:
        late = await write(slow, ["late"])
        early = await write(connection, ["early"])
        assert late < early
        for _ in range(3):
            await by_hand.turn()
        assert gate.arrived == early
        await slow.execute("COMMIT")
    await by_hand.turn()
    assert gate.arrived == early + late


async def test_a_transaction_above_all_that_are_over_holds_the_floor(
    by_hand: ByHand, database: str, gate: Gate
) -> None:
    # The snapshot's xmax is one past the newest transaction that is over: here the writer's own.
    async with open_transaction(database) as older, open_transaction(database) as writer:
        await older.fetchval("SELECT pg_current_xact_id()")
        ids = await write(writer, ["a"])
        await older.execute("COMMIT")
        for _ in range(3):
            await by_hand.turn()
        await writer.execute("COMMIT")
    await by_hand.turn()
    assert gate.arrived == ids


async def test_a_transaction_has_its_xid_before_it_draws_an_id(
    connection: asyncpg.Connection, database: str
) -> None:
    async with open_transaction(database) as first, sql.connection(database) as second:
        await first.execute("SELECT pg_advisory_xact_lock(1)")
        waiting = asyncio.create_task(
            second.execute(
                "INSERT INTO outbox (message_id, type, sink, destination)"
                " SELECT gen_random_uuid(), 't', 'gated', 'slots' FROM pg_advisory_xact_lock(1)"
            )
        )
        pid = second.get_server_pid()
        await sql.blocked(connection, pid)
        drawn = await connection.fetchval("SELECT is_called FROM outbox_id_seq")
        xid = await connection.fetchval("SELECT backend_xid FROM pg_stat_activity WHERE pid = $1", pid)
        await first.execute("ROLLBACK")
        await waiting
    assert xid is not None
    assert not drawn


async def test_a_reader_does_not_hold_the_floor_and_a_writer_does(
    by_hand: ByHand, connection: asyncpg.Connection, database: str
) -> None:
    (first,) = await write(connection, ["a"])
    lane = by_hand.lane(await lane_of(connection, first))
    async with open_transaction(database, keeps_snapshot=True) as reader:
        await reader.fetchval("SELECT count(*) FROM outbox")
        for _ in range(3):
            await by_hand.turn()
        assert lane.floor == first
        async with open_transaction(database) as writer:
            await writer.fetchval("SELECT pg_current_xact_id()")
            (second,) = await write(connection, ["a"])
            for _ in range(3):
                await by_hand.turn()
            assert lane.floor == first
            await writer.execute("COMMIT")
        for _ in range(3):
            await by_hand.turn()
        assert lane.floor == second


async def keys_of_one_lane(connection: asyncpg.Connection, count: int) -> list[str]:
    rows = await connection.fetch(
        "SELECT key FROM (SELECT 'key-' || n AS key FROM generate_series(1, 10000) AS n) AS keys"
        " WHERE hashtextextended(key, hashtextextended($1, 0)) & 63 = 7 LIMIT $2",
        TOPIC,
        count,
    )
    return [row["key"] for row in rows]


COLUMNS = ("message_id", "type", "sink", "destination", "key")


async def insert_one(session: asyncpg.Connection, key: str) -> None:
    await write(session, [key])


async def copy_one(session: asyncpg.Connection, key: str) -> None:
    row = (uuid4(), "t.happened", SINK, TOPIC, key)
    await session.copy_records_to_table("outbox", records=[row], columns=COLUMNS)


BESIDE = {
    "nobody": "SELECT 1",
    "a reader's snapshot": "SELECT count(*) FROM outbox",
    "an older writer": "SELECT pg_current_xact_id()",
}


@pytest.mark.parametrize("beside", BESIDE)
async def test_writers_that_take_turns_keep_their_order(
    environment: dict[str, str], connection: asyncpg.Connection, database: str, gate: Gate, beside: str
) -> None:
    keys = await keys_of_one_lane(connection, 8)

    async def write_in_turn(number: int, key: str) -> None:
        put = insert_one if number % 2 else copy_one
        async with sql.connection(database) as session:
            for _ in range(3_000 // len(keys)):
                async with session.transaction():
                    await put(session, key)
                    # The others commit meanwhile.
                    await session.execute("SELECT pg_sleep(random() * 0.004)")

    async with open_transaction(database, keeps_snapshot=True) as other:
        await other.execute(BESIDE[beside])
        async with Relay(settings_of(environment)):
            await asyncio.gather(*(write_in_turn(number, key) for number, key in enumerate(keys)))
            await emptied(connection)
    assert len(gate.arrived) == 3_000
    assert inversions(gate.attempts) == []
