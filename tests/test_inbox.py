from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from outbox import new_id, once, prune_inbox, unseen
from tests.support import sql


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    async with sql.engine(database) as made:
        async with made.begin() as connection:
            await connection.execute(text("CREATE TABLE effects (message_id uuid)"))
        yield made


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as made:
        yield made


@pytest.fixture
async def observer(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as made:
        yield made


async def act(session: AsyncSession | AsyncConnection) -> None:
    await session.execute(text("INSERT INTO effects DEFAULT VALUES"))


async def counts(observer: asyncpg.Connection) -> tuple[int, int]:
    """Effects and records."""
    return tuple(
        await observer.fetchrow("SELECT (SELECT count(*) FROM effects), (SELECT count(*) FROM outbox_inbox)")
    )


async def test_a_message_that_comes_again_is_not_the_first(session: AsyncSession) -> None:
    message_id = new_id()
    for expected in (True, False, False):
        async with once(session, "grades", message_id) as first:
            assert first is expected
        await session.commit()


async def test_each_consumer_acts_once(session: AsyncSession) -> None:
    message_id = new_id()
    for consumer in ("grades", "mails"):
        async with once(session, consumer, message_id) as first:
            assert first
    async with once(session, "grades", new_id()) as first:
        assert first


async def test_of_many_messages_those_that_come_first_are_told(session: AsyncSession) -> None:
    ids = [new_id() for _ in range(5)]
    assert await unseen(session, "grades", [*ids[:3], ids[0]]) == set(ids[:3])
    await session.commit()
    assert await unseen(session, "grades", ids) == set(ids[3:])
    await session.rollback()
    assert await unseen(session, "mails", ids) == set(ids)
    assert await unseen(session, "grades", ids) == set(ids[3:])


async def test_a_connection_will_do(engine: AsyncEngine) -> None:
    message_id = new_id()
    async with engine.begin() as connection, once(connection, "grades", message_id) as first:
        assert first
    async with engine.begin() as connection, once(connection, "grades", message_id) as first:
        assert not first


async def test_record_and_effect_are_one_with_the_transaction(
    session: AsyncSession, observer: asyncpg.Connection
) -> None:
    message_id = new_id()
    async with once(session, "grades", message_id):
        await act(session)
    assert await counts(observer) == (0, 0)
    await session.rollback()
    async with once(session, "grades", message_id) as first:
        assert first
        await act(session)
    await session.commit()
    assert await counts(observer) == (1, 1)


@pytest.mark.parametrize("failing", ["raise", "SELECT 1/0"])
async def test_an_error_in_the_block_undoes_both_and_nothing_else(
    session: AsyncSession, observer: asyncpg.Connection, failing: str
) -> None:
    async def fail() -> None:
        async with once(session, "grades", new_id()):
            await act(session)
            if failing == "raise":
                raise ValueError
            await session.execute(text(failing))

    await act(session)
    with pytest.raises((ValueError, DBAPIError)):
        await fail()
    await session.commit()
    assert await counts(observer) == (1, 0)


@pytest.mark.parametrize(("ending", "expected"), [("commit", False), ("rollback", True)])
async def test_it_waits_for_another_that_is_acting_on_it(
    engine: AsyncEngine, observer: asyncpg.Connection, ending: str, *, expected: bool
) -> None:
    message_id = new_id()

    async def again(session: AsyncSession) -> bool:
        async with once(session, "grades", message_id) as first:
            return first

    async with AsyncSession(engine) as one, AsyncSession(engine) as other:
        async with once(one, "grades", message_id) as first:
            assert first
        pid = await sql.pid_of(other)
        waiting = asyncio.create_task(again(other))
        await sql.blocked(observer, pid)
        await getattr(one, ending)()
        assert await waiting is expected


async def test_autocommit_is_refused(database: str) -> None:
    async with sql.engine(database, isolation_level="AUTOCOMMIT") as engine, engine.connect() as connection:
        with pytest.raises(DBAPIError, match="SAVEPOINT can only be used in transaction blocks"):
            async with once(connection, "grades", new_id()):
                pass


async def test_old_records_are_pruned_in_bites(session: AsyncSession, observer: asyncpg.Connection) -> None:
    await observer.execute(
        "INSERT INTO outbox_inbox SELECT 'grades', gen_random_uuid(), now() - n * interval '1 day'"
        " FROM generate_series(1, 10) n"
    )
    assert await prune_inbox(session, "grades", timedelta(days=4.5), limit=4) == 4
    assert await prune_inbox(session, "grades", timedelta(days=4.5), limit=4) == 2
    assert await prune_inbox(session, "grades", timedelta(days=4.5), limit=4) == 0
    await session.commit()
    left = await observer.fetchval("SELECT max(now() - received_at) FROM outbox_inbox")
    assert timedelta(days=4) < left < timedelta(days=4.5)
    async with once(session, "grades", new_id()) as first:
        assert first


async def test_pruning_forgets_nothing_of_another_consumer(
    session: AsyncSession, observer: asyncpg.Connection
) -> None:
    await observer.execute(
        "INSERT INTO outbox_inbox SELECT consumer, gen_random_uuid(), now() - n * interval '1 day'"
        " FROM generate_series(1, 10) n, unnest('{grades,slots}'::text[]) AS consumer"
    )
    assert await prune_inbox(session, "grades", timedelta()) == 10
    await session.commit()
    left = await observer.fetch("SELECT consumer, count(*) FROM outbox_inbox GROUP BY 1")
    assert [tuple(row) for row in left] == [("slots", 10)]


async def test_pruning_reads_only_what_it_forgets(
    session: AsyncSession, observer: asyncpg.Connection
) -> None:
    await observer.execute(
        "INSERT INTO outbox_inbox SELECT 'grades', gen_random_uuid(), now() - n * interval '1 minute'"
        " FROM generate_series(1, 20000) n; ANALYZE outbox_inbox; SET enable_seqscan = on"
    )
    statements: list[str] = []
    event.listen(
        session.get_bind(), "before_cursor_execute", lambda *args: statements.append(args[2]), named=False
    )
    await prune_inbox(session, "grades", timedelta(minutes=19_000), limit=100)
    await observer.execute(f"PREPARE forgetting AS {statements[-1]}")
    plan = await observer.fetch("EXPLAIN EXECUTE forgetting ('grades', '19000 minutes', 100)")
    text = "\n".join(row[0] for row in plan)
    assert "Index Scan using outbox_inbox_consumer_received_at" in text
    assert "Seq Scan" not in text
