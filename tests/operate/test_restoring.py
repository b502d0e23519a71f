"""Backup, restore, upgrade, replication: each way of the manual, and what is amiss where it is not taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from outbox import operate
from outbox.devstack import Postgres
from outbox.devstack.postgres import system_binaries, wheel_binaries
from outbox.operate import Damage, Selection
from outbox.relay import Relay
from outbox.testing import Fault, Gate
from tests.relay.traffic import QUICK, SINK, emptied, inversions, settings_of, write
from tests.support import moving, servers
from tests.support.postgres import Cluster, migrate
from tests.support.sql import connection
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.slow

KEYS = ["a", "b", None] * 10
TABLES = ("outbox", "outbox_queue", "outbox_receipts")


@dataclass(frozen=True, slots=True)
class Used:
    """What is in an outbox that was in use."""

    done: list[int]
    waiting: list[int]
    parked: list[int]


def environment_of(url: str, gate: Gate) -> Mapping[str, str]:
    return {"OUTBOX_DATABASE_URL": url, **QUICK, **gate.environment(SINK)}


async def use(url: str, gate: Gate) -> Used:
    """Some is delivered, one is parked, the rest waits."""
    async with connection(url) as db:
        done = await write(db, KEYS)
        parked = await write(db, ["parked"])
        gate.set(Fault(kind="permanent", key="parked"))
        async with Relay(settings_of(environment_of(url, gate))):
            await emptied(db, but=1)
        return Used(done, await write(db, KEYS), parked)


async def look(url: str, gate: Gate) -> Damage:
    async with operate.connect(settings_of(environment_of(url, gate))) as operator:
        found = await operate.survey(operator)
        assert bool(found) is bool(await operate.look(operator))
        return found


async def repair(url: str, gate: Gate) -> Damage:
    async with operate.connect(settings_of(environment_of(url, gate))) as operator:
        mended = await operate.repair(operator)
        assert await operate.survey(operator) == Damage()
        return mended


async def goes_on(url: str, gate: Gate, used: Used, *, again: bool = False) -> None:
    """All that waits goes out in order, and so does what is written now and what is tried again."""
    gate.set()
    before = len(gate.arrived)
    environment = environment_of(url, gate)
    async with connection(url) as db:
        newer = await write(db, KEYS)
        assert min(newer) > max(used.waiting)
        async with operate.connect(settings_of(environment)) as operator:
            await operate.retry(operator, Selection())
        async with Relay(settings_of(environment)):
            await emptied(db)
    assert set(gate.arrived[before:]) >= {*used.waiting, *used.parked, *newer}
    if not again:
        assert sorted(gate.arrived) == sorted([*used.done, *used.waiting, *used.parked, *newer])
    assert inversions(gate.attempts) == []
    assert await look(url, gate) == Damage()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
async def migrated(postgres: Cluster) -> AsyncIterator[str]:
    """Another migrated database, without rows."""
    async with postgres.database(template=await postgres.template()) as url:
        yield url


async def test_a_dump_that_is_restored_as_a_whole_goes_on(
    database: str, empty_database: str, gate: Gate, tmp_path: Path
) -> None:
    used = await use(database, gate)
    await moving.restore(empty_database, await moving.dump(database, tmp_path))
    await goes_on(empty_database, gate, used)


async def test_a_data_only_restore_with_triggers_disabled_goes_on(
    database: str, migrated: str, gate: Gate, tmp_path: Path
) -> None:
    used = await use(database, gate)
    file = await moving.dump(database, tmp_path, "--data-only", "--exclude-table=outbox_alembic_version")
    await moving.restore(migrated, file, "--data-only", "--disable-triggers")
    await goes_on(migrated, gate, used)


async def test_a_data_only_restore_through_the_triggers_is_seen_and_mended(
    database: str, migrated: str, gate: Gate, tmp_path: Path
) -> None:
    used = await use(database, gate)
    file = await moving.dump(database, tmp_path, "--data-only", "--exclude-table=outbox_alembic_version")
    said = await moving.restore(migrated, file, "--data-only", fails=True)
    assert "outbox_queue_pkey" in said
    assert await look(migrated, gate) == Damage(again=len(used.done))
    assert await repair(migrated, gate) == Damage(again=len(used.done))
    await goes_on(migrated, gate, used)


async def test_a_restore_without_the_queue_is_seen_and_mended(
    database: str, migrated: str, gate: Gate, tmp_path: Path
) -> None:
    used = await use(database, gate)
    tables = ("--table=outbox", "--table=outbox_receipts")
    file = await moving.dump(database, tmp_path, "--data-only")
    await moving.restore(migrated, file, "--data-only", "--disable-triggers", *tables)
    found = await look(migrated, gate)
    lost = len(used.waiting) + len(used.parked)
    assert (found.lost, found.overtaken) == (lost, 0)
    assert found.behind > 0
    await repair(migrated, gate)
    await goes_on(migrated, gate, used)


async def test_a_restore_without_receipts_sends_again_what_was_done(
    database: str, migrated: str, gate: Gate, tmp_path: Path
) -> None:
    used = await use(database, gate)
    file = await moving.dump(database, tmp_path, "--data-only", "--table=outbox")
    await moving.restore(migrated, file, "--data-only")
    await repair(migrated, gate)
    await goes_on(migrated, gate, used, again=True)


async def test_an_upgrade_by_dump_from_an_older_major_goes_on(
    empty_database: str, gate: Gate, tmp_path: Path
) -> None:
    older = system_binaries()
    if older is None:
        servers.missing("no PostgreSQL of the system's")
    async with Postgres(binaries=older, settings=servers.POSTGRES_SETTINGS) as old:
        url = Cluster(old.url).url_of(await Cluster(old.url).template())
        used = await use(url, gate)
        await moving.restore(empty_database, await moving.dump(url, tmp_path))
    await goes_on(empty_database, gate, used)


async def test_pg_upgrade_goes_on(gate: Gate) -> None:
    newest = wheel_binaries()
    async with Postgres(binaries=system_binaries() or newest, settings=servers.POSTGRES_SETTINGS) as old:
        cluster = Cluster(old.url)
        name = await cluster.template()
        used = await use(cluster.url_of(name), gate)
        await old.stop()
        new = Postgres(binaries=newest, settings=servers.POSTGRES_SETTINGS)
        try:
            await moving.upgrade(old, new)
            await goes_on(Cluster(new.url).url_of(name), gate, used)
        finally:
            await new.__aexit__()


# Logical replication


@pytest.fixture
async def publisher() -> AsyncIterator[str]:
    """A database on a server of its own, from which others may subscribe."""
    settings = {**servers.POSTGRES_SETTINGS, "wal_level": "logical"}
    async with Postgres(binaries=wheel_binaries(), settings=settings) as server:
        await migrate(server.url)
        yield server.url


async def test_a_subscriber_of_all_three_tables_goes_on_once_its_sequence_is_set(
    publisher: str, migrated: str, gate: Gate
) -> None:
    before = await use(publisher, gate)
    async with moving.subscribed(publisher, migrated, *TABLES):
        await moving.caught_up(publisher, migrated)
        async with Relay(settings_of(environment_of(publisher, gate))), connection(publisher) as db:
            await emptied(db, but=1)
            waiting = [*await write(db, KEYS)]
            await emptied(db, but=1)
        async with connection(publisher) as db:
            left = await write(db, KEYS)
        await moving.caught_up(publisher, migrated)
    found = await look(migrated, gate)
    assert found == Damage(behind=found.behind)
    assert found.behind > 0
    await repair(migrated, gate)
    await goes_on(migrated, gate, Used([*before.done, *before.waiting, *waiting], left, before.parked))


async def test_a_subscriber_of_the_messages_alone_has_lost_them_until_they_are_queued(
    publisher: str, migrated: str, gate: Gate
) -> None:
    async with moving.subscribed(publisher, migrated, "outbox"):
        async with connection(publisher) as db:
            ids = await write(db, KEYS)
        await moving.caught_up(publisher, migrated)
    assert (await look(migrated, gate)).lost == len(ids)
    await repair(migrated, gate)
    await goes_on(migrated, gate, Used([], ids, []))


async def test_rows_written_as_a_replica_are_lost_until_they_are_queued(database: str, gate: Gate) -> None:
    async with connection(database) as db:
        await db.execute("SET session_replication_role = replica")
        ids = await write(db, KEYS)
    async with operate.connect(settings_of(environment_of(database, gate))) as operator:
        assert (await operate.status(operator)).needs_attention
    await repair(database, gate)
    await goes_on(database, gate, Used([], ids, []))


async def test_an_insert_into_the_queue_sends_again_or_is_taken_out(database: str, gate: Gate) -> None:
    used = await use(database, gate)
    async with connection(database) as db:
        await db.execute(
            "INSERT INTO outbox_queue (sink, lane, id, key_hash, destination_hash, bytes, first_due_at)"
            " SELECT sink, lane, id, key_hash, hashtextextended(destination, 0), 1, now() FROM outbox"
            " WHERE id = ANY ($1)",
            used.done[:5],
        )
        assert (await look(database, gate)).again == 5
        await repair(database, gate)
        await db.execute("DELETE FROM outbox WHERE id = $1", used.done[0])
    await goes_on(database, gate, used)


async def truncate(db: asyncpg.Connection) -> None:
    while True:
        with suppress(asyncpg.DeadlockDetectedError):
            await db.execute("TRUNCATE outbox_queue, outbox_receipts, outbox RESTART IDENTITY")
            return


async def test_after_truncate_restart_identity_new_rows_go_out_at_once_and_in_order(
    database: str, gate: Gate
) -> None:
    environment = environment_of(database, gate)
    async with connection(database) as db, Relay(settings_of(environment)):
        await write(db, KEYS)
        await emptied(db)
        for rows in (KEYS, KEYS * 20):
            await truncate(db)
            before = len(gate.arrived)
            async with asyncio.timeout(PATIENCE):
                await write(db, rows)
                await emptied(db)
            arrived = gate.attempts[before:]
            assert len(arrived) == len(rows)
            assert inversions(arrived) == []
            assert await look(database, gate) == Damage()
