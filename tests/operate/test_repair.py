"""Rows that do not fit together: each kind is noticed, without false alarms, and mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.migrate import upgrade
from outbox.operate import Damage, connect
from outbox.schema import in_schema
from outbox.schema.grants import grants
from outbox.schema.integrity import BY_INDEX, LOOK
from outbox.settings import Settings
from tests.relay.by_hand import Plan
from tests.support import sql
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Cluster

WRITE = """
    INSERT INTO outbox (message_id, type, sink, destination, key, payload, available_at)
    SELECT gen_random_uuid(), 't', 'kafka', 'd', CASE WHEN n % 10 > 0 THEN 'k' || n % 10 END, 'x',
           CASE WHEN n % 7 = 0 THEN clock_timestamp() + interval '1 hour' END
    FROM generate_series(1, $1::integer) AS n
    RETURNING id
"""
SETTLE = """
    WITH done AS (DELETE FROM outbox_queue WHERE id = ANY ($1) RETURNING id)
    INSERT INTO outbox_receipts (id, outcome, attempts) SELECT id, 'delivered', 0 FROM done
"""
WRITE_WITH_ID = """
    INSERT INTO outbox (id, message_id, type, sink, destination, key, created_at) OVERRIDING SYSTEM VALUE
    VALUES ($1, gen_random_uuid(), 't', 'kafka', 'd', 'k1', clock_timestamp() + $2 * interval '1 second')
"""


@pytest.fixture
async def hand(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's."""
    async with sql.connection(database) as connection:
        yield connection


async def write(hand: asyncpg.Connection, rows: int) -> list[int]:
    return [id_ for (id_,) in await hand.fetch(WRITE, rows)]


async def seen(operator: AsyncConnection) -> dict[str, int]:
    """What a look finds amiss."""
    async with operator.begin():
        found = (await operate.look(operator)).counts
    return {kind: number for kind, number in found.items() if number}


async def as_a_replica(hand: asyncpg.Connection, rows: int) -> list[int]:
    """Rows that no trigger saw."""
    await hand.execute("SET session_replication_role = replica")
    ids = await write(hand, rows)
    await hand.execute("RESET session_replication_role")
    return ids


async def queued(hand: asyncpg.Connection) -> list[int]:
    return [id_ for (id_,) in await hand.fetch("SELECT id FROM outbox_queue ORDER BY id")]


async def test_rows_in_neither_table_are_queued_as_the_trigger_does_it(
    hand: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await write(hand, 50)
    by_the_trigger = await hand.fetch("SELECT * FROM outbox_queue ORDER BY id")
    await hand.execute("TRUNCATE outbox_queue")
    assert await seen(operator) == {"lost": 50}
    assert await operate.survey(operator) == Damage(lost=50)
    assert await operate.repair(operator) == Damage(lost=50)
    assert await hand.fetch("SELECT * FROM outbox_queue ORDER BY id") == by_the_trigger
    assert await seen(operator) == {}
    assert await operate.survey(operator) == Damage()


async def test_a_replicas_rows_are_lost_until_they_are_queued_and_owners_look_again(
    hand: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await hand.execute("INSERT INTO outbox_sinks (sink, stuck_after, on_park) VALUES ('kafka', '1h', 'hold')")
    lost = await as_a_replica(hand, 20)
    later = await write(hand, 20)
    await hand.execute(SETTLE, later[:4])
    assert await seen(operator) == {"lost": 20}
    found = await operate.survey(operator)
    assert found == Damage(lost=20, overtaken=4)
    assert await operate.repair(operator) == Damage(lost=20)
    assert await queued(hand) == [*lost, *later[4:]]
    assert await hand.fetchval("SELECT holds_ended FROM outbox_sinks") >= 1


async def test_what_is_lost_on_purpose_is_skipped(
    hand: asyncpg.Connection, operator: AsyncConnection
) -> None:
    ids = await write(hand, 20)
    await hand.execute("DELETE FROM outbox_queue WHERE id <= $1", ids[9])
    assert await operate.repair(operator, "skip") == Damage(lost=10)
    assert await hand.fetchval("SELECT count(*) FROM outbox_receipts WHERE outcome = 'skipped'") == 10
    assert await queued(hand) == ids[10:]
    assert await seen(operator) == {}


async def test_what_is_in_both_goes_by_which_is_younger(
    hand: asyncpg.Connection, operator: AsyncConnection
) -> None:
    stale, again, *_ = await write(hand, 10)
    await hand.execute(
        "INSERT INTO outbox_receipts (id, outcome, attempts, settled_at)"
        " VALUES ($1, 'delivered', 0, now()), ($2, 'delivered', 0, now() - interval '1 day')",
        again,
        stale,
    )
    assert await seen(operator) == {"double": 2}
    assert await operate.survey(operator) == Damage(again=1, stale=1)
    assert await operate.repair(operator) == Damage(again=1, stale=1)
    assert again not in await queued(hand)
    assert stale in await queued(hand)
    assert await hand.fetchval("SELECT array_agg(id) FROM outbox_receipts") == [again]
    assert await seen(operator) == {}


async def test_what_is_queued_without_its_message_is_deleted_and_holds_nobody(
    hand: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await hand.execute("INSERT INTO outbox_sinks (sink, stuck_after, on_park) VALUES ('kafka', '1h', 'hold')")
    ids = await write(hand, 20)
    await hand.execute(
        "UPDATE outbox_queue SET blocks = true, parked_at = now(), due_at = NULL, last_error = 'x'"
        " WHERE id = $1",
        ids[0],
    )
    await hand.execute("DELETE FROM outbox WHERE id = ANY ($1)", ids[:5])
    assert await seen(operator) == {"ghosts": 5}
    assert await operate.survey(operator) == Damage(ghosts=5)
    assert await operate.repair(operator) == Damage(ghosts=5)
    assert await queued(hand) == ids[5:]
    assert await hand.fetchval("SELECT holds_ended FROM outbox_sinks") >= 1


async def test_a_sequence_behind_the_ids_is_set_on(
    hand: asyncpg.Connection, operator: AsyncConnection
) -> None:
    ids = await write(hand, 10)
    await hand.execute("ALTER SEQUENCE outbox_id_seq RESTART")
    assert await seen(operator) == {"behind": 10}
    with pytest.raises(asyncpg.UniqueViolationError):
        await write(hand, 1)
    assert (await operate.repair(operator)).behind == 9
    assert (await write(hand, 1))[0] > ids[-1]
    assert await seen(operator) == {}


async def test_an_id_so_high_that_the_sequence_never_gets_there_stops_nobody(
    hand: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await hand.execute(WRITE_WITH_ID, 2**63 - 1, 0)
    assert await seen(operator) == {}
    assert await operate.repair(operator) == Damage()
    await write(hand, 10)


async def test_an_id_given_by_hand_below_what_was_delivered_is_seen(
    hand: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await hand.execute("INSERT INTO outbox_sinks (sink, stuck_after, on_park) VALUES ('kafka', '1h', 'hold')")
    await hand.execute("SELECT setval('outbox_id_seq', 100)")
    await hand.execute(SETTLE, await write(hand, 10))
    await hand.execute("UPDATE outbox_receipts SET settled_at = now() - interval '1 minute'")
    await hand.execute(WRITE_WITH_ID, 50, 0)
    assert await seen(operator) == {"passed": 1}
    assert await operate.repair(operator) == Damage(passed=1)
    assert await hand.fetchval("SELECT holds_ended FROM outbox_sinks") >= 1
    await write(hand, 10)
    await hand.execute(SETTLE, [50])
    assert await seen(operator) == {}


# No false alarms


async def test_what_is_written_settled_skipped_or_pruned_at_that_moment_is_no_alarm(
    database: str, operator: AsyncConnection
) -> None:
    over = asyncio.Event()

    async def live() -> None:
        async with sql.connection(database) as writer, sql.connection(database) as other:
            while not over.is_set():
                async with writer.transaction():
                    ids = await write(writer, 100)
                    await other.execute("SELECT pg_current_xact_id()")
                await writer.execute(SETTLE, ids[::2])
                async with writer.transaction():
                    await writer.execute("DELETE FROM outbox_receipts WHERE id = ANY ($1)", ids[::4])
                    await writer.execute("DELETE FROM outbox WHERE id = ANY ($1)", ids[::4])

    async with sql.connection(database) as late, asyncio.TaskGroup() as group:
        await late.execute("BEGIN")
        await write(late, 100)
        for _ in range(3):
            group.create_task(live())
        for _ in range(30):
            assert await seen(operator) == {}
        assert await operate.survey(operator) == Damage()
        over.set()
        await late.execute("COMMIT")
    assert await seen(operator) == {}


# Bounded, and safe beside others


@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_look_reads_a_bounded_number_of_rows(every_postgres: Cluster, analyzed: bool) -> None:
    template = await every_postgres.template()
    async with every_postgres.database(template=template) as url, sql.connection(url) as hand:
        await hand.execute(SETTLE, await write(hand, 100_000))
        await write(hand, 100_000)
        if analyzed:
            await hand.execute("ANALYZE")
        async with hand.transaction():
            await hand.execute(BY_INDEX)
            explained = await hand.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {in_schema(LOOK, None)}")
        assert Plan.of(explained).rows_read < 60_000


async def test_repair_goes_through_tables_of_many_stretches(
    hand: asyncpg.Connection, operator: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.operate.mend._STRETCH_ROWS", 100)
    lost = await as_a_replica(hand, 1_050)
    ghosts = await write(hand, 1_050)
    await hand.execute("DELETE FROM outbox WHERE id = ANY ($1)", ghosts)
    done = await write(hand, 500)
    await hand.execute(SETTLE, done)
    assert await operate.survey(operator) == Damage(lost=1_050, ghosts=1_050, overtaken=9)
    assert await operate.repair(operator) == Damage(lost=1_050, ghosts=1_050)
    assert await queued(hand) == lost
    assert await operate.survey(operator) == Damage()


async def test_two_repairs_at_once_queue_nothing_twice(
    database: str, hand: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.operate.mend._STRETCH_ROWS", 100)
    lost = await as_a_replica(hand, 2_000)
    over = asyncio.Event()

    async def relay() -> None:
        async with sql.connection(database) as relay:
            while not over.is_set():
                await relay.execute(
                    "WITH done AS (DELETE FROM outbox_queue WHERE id % 3 = 0 RETURNING id)"
                    " INSERT INTO outbox_receipts (id, outcome, attempts)"
                    " SELECT id, 'delivered', 0 FROM done"
                )

    async def mend() -> Damage:
        async with connect(Settings.model_validate({"database_url": database})) as connection:
            return await operate.repair(connection)

    async with asyncio.TaskGroup() as group:
        group.create_task(relay())
        mended = await asyncio.gather(*(mend() for _ in range(3)))
        over.set()
    assert sum(each.lost for each in mended) == len(lost)
    both = "SELECT count(*) FROM outbox_queue JOIN outbox_receipts USING (id)"
    assert await hand.fetchval(both) == 0


# With no more rights than an operator's, in a schema of its own, behind a pooler


@pytest.mark.parametrize("schema", [None, "Own"])
async def test_an_operators_rights_suffice(empty_database: str, schema: str | None) -> None:
    await asyncio.to_thread(upgrade, Settings(database_url=empty_database, database_schema=schema))
    async with sql.role(empty_database) as (role, url), sql.connection(empty_database) as hand:
        for statement in grants("operator", role, schema):
            await hand.execute(statement)
        if schema:
            await hand.execute(f'SET search_path = "{schema}"')
        first, second, *_ = await write(hand, 10)
        await hand.execute("DELETE FROM outbox WHERE id = $1", first)
        await hand.execute("DELETE FROM outbox_queue WHERE id = $1", second)
        await hand.execute("ALTER SEQUENCE outbox_id_seq RESTART")
        async with connect(Settings(database_url=url, database_schema=schema)) as operator:
            assert await seen(operator) == {"lost": 1, "ghosts": 1, "behind": 10}
            for lost in ("queue", "skip"):
                assert await operate.repair(operator, lost)
                await hand.execute("DELETE FROM outbox_queue WHERE id = $1", second)
            assert await seen(operator) == {}


async def test_behind_a_pooler(pgbouncer: PgBouncer, hand: asyncpg.Connection) -> None:
    await write(hand, 10)
    await hand.execute("TRUNCATE outbox_queue")
    settings = Settings.model_validate({"database_url": pgbouncer.url, "database_pooler": "transaction"})
    async with connect(settings) as operator:
        assert await seen(operator) == {"lost": 10}
        assert await operate.repair(operator) == Damage(lost=10)
        assert await seen(operator) == {}
        # Nobody else inherits how the look was planned.
        assert await operator.scalar(text("SHOW enable_seqscan")) == "on"
