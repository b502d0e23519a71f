"""Migrations while writers write, sessions hold locks, and runs end in the middle."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
import pytest

from outbox import OperatorError
from outbox.migrate import environment
from outbox.policy import Backoff
from outbox.schema import VERSION_TABLE, catalog
from tests.support.migrations import Scripts
from tests.support.postgres import Cluster
from tests.support.sql import connection
from tests.support.waiting import until
from tests.support.writers import Writers

pytestmark = pytest.mark.slow

INSERT = """
    INSERT INTO outbox (message_id, type, sink, destination, payload)
    VALUES (gen_random_uuid(), 't', 'kafka', 'd', $1)
"""
ADD_COLUMN = ('op.add_column("outbox", sa.Column("x", sa.Text()))', 'op.drop_column("outbox", "x")')
BUILD_INDEX = (
    'steps.build_index("outbox_x", "outbox", ["created_at"])',
    'steps.drop_index("outbox_x", "outbox")',
)
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('outbox_x')"
WAITING = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND starts_with(query, $1)
    AND cardinality(pg_blocking_pids(pid)) > 0
"""


@pytest.fixture
async def db(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with connection(database) as made:
        yield made


@asynccontextmanager
async def open_transaction(url: str, statement: str = "SELECT FROM outbox") -> AsyncIterator[int]:
    """Somebody's transaction that stays open within the block; its session's pid."""
    named = {"application_name": "report"}
    async with connection(url, server_settings=named) as other, other.transaction():
        await other.execute(statement)
        yield other.get_server_pid()


def writing_transaction(url: str) -> AbstractAsyncContextManager[int]:
    """One that has written, and which a concurrent index build waits for."""
    return open_transaction(url, "LOCK TABLE outbox IN ROW EXCLUSIVE MODE")


async def waiting(db: asyncpg.Connection, statement: str) -> int:
    """The session whose statement waits for a lock, once it does."""

    async def waits() -> bool:
        return await db.fetchval(WAITING, statement) is not None

    await until(waits)
    pid: int = await db.fetchval(WAITING, statement)
    return pid


async def told(caplog: pytest.LogCaptureFixture, *words: str) -> str:
    """The first warning with all these words, once there is one."""

    def found() -> list[str]:
        messages = [record.getMessage() for record in caplog.records if record.name == "outbox.migrate"]
        return [message for message in messages if all(word in message for word in words)]

    async def is_there() -> bool:
        return bool(found())

    await until(is_there)
    return found()[0]


# Locks


async def test_who_holds_a_lock_delays_no_writer_for_longer_than_a_try(
    scripts: Scripts, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    scripts.add(*ADD_COLUMN)
    async with Writers.at_work(database, {"kafka": "t"}) as writers, asyncio.TaskGroup() as group:
        await writers.more()
        usual = writers.longest
        async with open_transaction(database) as pid:
            migrating = group.create_task(scripts.upgrade(database))
            await told(caplog, "no lock within 0.25 s, trying again in 1 s")
            await told(caplog, "ALTER TABLE outbox ADD COLUMN x", f"pid {pid} (", "report", "trying again in")
            assert not migrating.done()
        await migrating
        await writers.more()
    assert 0.2 < writers.longest < usual + environment.LOCK.longest + 1.0


async def test_a_lock_that_is_never_to_be_had_ends_the_run_and_the_next_goes_on(
    scripts: Scripts, database: str, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "TRIES", 2)
    monkeypatch.setattr(environment, "PAUSE", Backoff(0.01, 0.01))
    first = scripts.add('op.execute("COMMENT ON TABLE outbox_inbox IS NULL")')
    second = scripts.add(*ADD_COLUMN)
    async with open_transaction(database) as pid:
        with pytest.raises(
            OperatorError, match=rf"pid {pid} .* no lock in 2 tries.* goes on where it stopped"
        ):
            await scripts.upgrade(database)
        assert await catalog.version(db) == first
    await scripts.upgrade(database)
    assert await catalog.version(db) == second


async def test_each_migration_has_its_tries(
    scripts: Scripts, database: str, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "TRIES", 2)
    monkeypatch.setattr(environment, "PAUSE", Backoff(0.01, 0.01))
    # Each takes the lock of the test once, and then finds it free.
    await db.execute("CREATE TABLE held (id int); CREATE SEQUENCE tries")
    once = """
        op.execute("DO 'BEGIN IF nextval(''tries'') % 2 = 1 THEN RAISE lock_not_available; END IF; END'")
    """
    for _ in range(3):
        last = scripts.add(once)
    await scripts.upgrade(database)
    assert await catalog.version(db) == last


@pytest.mark.parametrize("schema", [None, "Own"])
async def test_an_index_is_built_while_writers_write(
    scripts: Scripts, empty_database: str, schema: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    await scripts.upgrade(empty_database, schema=schema)
    scripts.add(*BUILD_INDEX)
    path = {"server_settings": {"search_path": f'"{schema or "public"}"'}}
    async with connection(empty_database, **path) as db, connection(empty_database, **path) as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute(INSERT, b"early")
        async with asyncio.TaskGroup() as group:
            migrating = group.create_task(scripts.upgrade(empty_database, schema=schema))
            await waiting(db, "CREATE INDEX CONCURRENTLY")
            for _ in range(10):
                await db.execute(INSERT, b"meanwhile")
            # Longer than any other migration may wait.
            await told(caplog, "CREATE INDEX CONCURRENTLY", f"waiting for pid {writer.get_server_pid()} (")
            assert not migrating.done()
            await transaction.commit()
        assert await db.fetchval(IS_VALID)
        assert await db.fetchval("SELECT count(*) FROM outbox") == 11


async def test_what_a_role_has_set_for_its_services_does_not_count(
    scripts: Scripts, database: str, db: asyncpg.Connection
) -> None:
    scripts.add(*BUILD_INDEX)
    name = await db.fetchval("SELECT current_database()")
    for setting in ("statement_timeout = '1s'", "lock_timeout = '1s'", "search_path = nowhere, public"):
        await db.execute(f"ALTER DATABASE {name} SET {setting}")
    async with asyncio.TaskGroup() as group, writing_transaction(database):
        group.create_task(scripts.upgrade(database))
        pid = await waiting(db, "CREATE INDEX CONCURRENTLY")

        async def is_past_its_time() -> bool:
            since = "SELECT clock_timestamp() - query_start > '1.2 s' FROM pg_stat_activity WHERE pid = $1"
            return bool(await db.fetchval(since, pid))

        await until(is_past_its_time)
    assert await db.fetchval(IS_VALID)


# What ends in the middle


async def test_a_run_that_is_killed_in_a_migration_leaves_nothing_of_it(
    scripts: Scripts, database: str, db: asyncpg.Connection
) -> None:
    first = scripts.add('op.execute("COMMENT ON TABLE outbox_inbox IS NULL")')
    second = scripts.add(
        """
        op.add_column("outbox", sa.Column("x", sa.Text()))
        if not (here := Path(__file__).with_suffix(".killed")).exists():
            here.touch()
            os.kill(os.getpid(), 9)
        """
    )
    process = await scripts.start(database)
    assert await process.wait() == -signal.SIGKILL
    assert await catalog.version(db) == first
    await scripts.upgrade(database)
    assert await catalog.version(db) == second


async def test_what_a_killed_run_left_at_work_keeps_the_next_one_waiting(
    scripts: Scripts, database: str, db: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    last = scripts.add(*BUILD_INDEX)
    async with writing_transaction(database):
        process = await scripts.start(database)
        orphan = await waiting(db, "CREATE INDEX CONCURRENTLY")
        process.kill()
        await process.wait()
        migrating = asyncio.create_task(scripts.upgrade(database))
        await told(caplog, "Another migration of these tables is under way", f"pid {orphan} (")
    await migrating
    assert await db.fetchval(IS_VALID)
    assert await catalog.version(db) == last


@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_an_index_that_was_left_broken_is_built_again(
    scripts: Scripts, database: str, db: asyncpg.Connection, end: str
) -> None:
    scripts.add(*BUILD_INDEX)
    async with writing_transaction(database):
        migrating = asyncio.create_task(scripts.upgrade(database))
        await db.execute(f"SELECT {end}($1)", await waiting(db, "CREATE INDEX CONCURRENTLY"))
        with pytest.raises(OperatorError):
            await migrating
    assert await db.fetchval(IS_VALID) is False
    await scripts.upgrade(database)
    assert await db.fetchval(IS_VALID) is True


async def test_an_index_that_is_finished_but_not_noted_stays(
    scripts: Scripts, database: str, db: asyncpg.Connection
) -> None:
    last = scripts.add(*BUILD_INDEX)
    await db.execute("CREATE INDEX outbox_x ON outbox (created_at)")
    before = await db.fetchval("SELECT 'outbox_x'::regclass::oid")
    await scripts.upgrade(database)
    assert await db.fetchval("SELECT 'outbox_x'::regclass::oid") == before
    assert await catalog.version(db) == last


# Two at once


async def test_who_waits_for_a_turn_is_in_no_index_builds_way(
    scripts: Scripts, database: str, db: asyncpg.Connection
) -> None:
    last = scripts.add(*BUILD_INDEX)
    async with writing_transaction(database):
        processes = [await scripts.start(database)]
        await waiting(db, "CREATE INDEX CONCURRENTLY")
        processes += [await scripts.start(database) for _ in range(2)]
        for process in processes[1:]:
            assert process.stderr is not None
            assert b"Another migration" in await process.stderr.readline()
    assert [await process.wait() for process in processes] == [0, 0, 0]
    assert await db.fetchval(IS_VALID)
    assert await catalog.version(db) == last


async def test_runs_that_begin_together_share_the_work(
    scripts: Scripts, postgres: Cluster, empty_database: str
) -> None:
    scripts.add_one_of_each_kind()
    processes = [await scripts.start(empty_database) for _ in range(3)]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    async with postgres.database() as url, connection(url) as alone, connection(empty_database) as db:
        await scripts.upgrade(url)
        assert await catalog.catalog(db) == await catalog.catalog(alone)
        assert await db.fetchval(f"SELECT count(*) FROM {VERSION_TABLE}") == 1


# CHECKs that older rows violate


async def test_a_check_that_older_rows_violate_stays_unvalidated_and_the_run_goes_on(
    scripts: Scripts, database: str, db: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await db.execute(INSERT, b"too long")
    scripts.add('steps.add_check("outbox_short", "length(payload) < 5")', 'steps.drop_check("outbox_short")')
    scripts.add('steps.validate("outbox_short")', 'steps.unvalidate("outbox_short")')
    last = scripts.add(*ADD_COLUMN)
    with caplog.at_level(logging.WARNING):
        await scripts.upgrade(database)
    assert await catalog.version(db) == last
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(INSERT, b"too long")
    assert (await catalog.catalog(db))["constraint outbox.outbox_short"].endswith("NOT VALID f")
    (line,) = await catalog.unvalidated(db)
    assert await told(caplog, "outbox_short") == line
    # As it says.
    find, mend = line.partition("Find them: ")[2].split(". Once they are gone: ")
    (row,) = await db.fetch(find)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(mend)
    await db.execute("DELETE FROM outbox WHERE id = $1", row["id"])
    await db.execute(mend)
    assert await catalog.unvalidated(db) == []


async def test_what_is_left_unvalidated_is_told_by_each_run(
    scripts: Scripts, database: str, db: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await db.execute("ALTER TABLE outbox ADD CONSTRAINT outbox_x CHECK (id > 0) NOT VALID")
    await scripts.upgrade(database)
    await told(caplog, "outbox_x on outbox is not validated")
