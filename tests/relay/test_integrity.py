"""Relays look through the tables for what does not fit together, a stretch at a time, and remember it."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from outbox import operate
from outbox.observe import AMISS, watch
from outbox.operate import Damage
from outbox.relay.integrity import WALK_OUTBOX, WALK_QUEUE, Integrity
from outbox.relay.store import relay_connection
from outbox.schema import in_schema
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand, Plan
from tests.relay.traffic import settings_of, write


async def remembered(connection: asyncpg.Connection) -> list[int]:
    return [id_ for (id_,) in await connection.fetch("SELECT id FROM outbox_amiss ORDER BY id")]


async def walked(environment: dict[str, str]) -> None:
    """One relay's turn of maintenance."""
    settings = settings_of(environment)
    async with relay_connection(settings, "maintenance by hand") as connection:
        await Integrity(settings).look(connection, asyncio.Event())


async def test_what_is_too_old_for_a_look_is_found_remembered_told_and_mended(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outbox.relay.integrity._STRETCH_ROWS", 100)
    monkeypatch.setattr("outbox.relay.integrity._SECONDS", 0.0001)  # One stretch a time.
    ghost, *lost = await write(connection, ["old"] * 3)
    await write(connection, ["a"] * 10_000)
    await connection.execute("DELETE FROM outbox_queue WHERE id = ANY ($1)", lost)
    await connection.execute("DELETE FROM outbox WHERE id = $1", ghost)
    async with operate.connect(settings_of(environment)) as operator:
        assert (await operate.look(operator)).lost == 0
    with watch() as events:
        await walked(environment)
    assert events.matching("integrity.amiss", lost=2)
    assert set(lost) <= set(await remembered(connection))
    assert AMISS.labels("lost")._value.get() == 2
    async with operate.connect(settings_of(environment)) as operator:
        assert (await operate.look(operator)).lost == 2
        await operator.rollback()
        assert await operate.repair(operator) == Damage(lost=2, ghosts=1)
    assert await remembered(connection) == []
    with watch() as events:
        await walked(environment)
    assert events.matching("integrity.checked", lost=0, double=0, ghosts=0, passed=0, behind=0)
    assert not events.matching("integrity.amiss")


async def test_a_walk_goes_on_where_it_stopped_and_begins_anew_at_the_end(
    environment: dict[str, str], connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.relay.integrity._STRETCH_ROWS", 100)
    monkeypatch.setattr("outbox.relay.integrity._SECONDS", 0.0001)
    await write(connection, ["a"] * 250)
    reached = []
    for _ in range(4):
        await walked(environment)
        reached.append(await connection.fetchval("SELECT id FROM outbox_walks WHERE walk = 'outbox'"))
    assert reached == [100, 200, 0, 100]
    rows = await connection.fetch("SELECT ended_at FROM outbox_walks")
    assert [row["ended_at"] is None for row in rows] == [False, False]


async def test_relays_do_not_take_the_same_step(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    await walked(environment)
    await connection.execute("BEGIN")
    await connection.execute("SELECT FROM outbox_walks FOR UPDATE")
    with watch() as events:
        await walked(environment)
    assert events.matching("integrity.checked")
    assert not events.matching("integrity.failed")


async def test_a_walk_over_what_is_done_reads_no_message(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection
) -> None:
    await walked(environment)
    await write(connection, ["a"] * 5_000)
    await by_hand.work()
    await connection.execute("VACUUM ANALYZE outbox, outbox_receipts")
    async with relay_connection(settings_of(environment), "maintenance by hand") as maintenance:
        for walk in (WALK_OUTBOX, WALK_QUEUE):
            await maintenance.execute(f"PREPARE walk AS {in_schema(walk, None)}")
            explained = await maintenance.fetchval("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE walk (1000)")
            assert Plan.of(explained).rows_read < 2_500
            await maintenance.execute("DEALLOCATE walk")


async def test_a_right_that_is_missing_stops_nothing_else(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    await connection.execute("ALTER TABLE outbox_walks RENAME TO hidden")
    with watch() as events:
        await walked(environment)
    assert events.matching("integrity.failed")


async def test_what_a_relay_parked_since_its_message_is_gone_is_seen_at_once(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    gate.set(Fault(kind="hold"))
    ghost, *_ = await write(connection, ["a"] * 3)
    await connection.execute("DELETE FROM outbox WHERE id = $1", ghost)
    gate.set()
    await by_hand.work()
    async with operate.connect(settings_of(environment)) as operator:
        assert (await operate.status(operator)).amiss.ghosts == 1
        await operator.rollback()
        await operate.repair(operator)
        assert not (await operate.status(operator)).needs_attention
