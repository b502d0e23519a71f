"""A relay that lost a lane changes nothing in it, but for the fact that something was delivered."""

from __future__ import annotations

import asyncio

import asyncpg

from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand, is_idle
from tests.relay.traffic import lane_of, state, write
from tests.support import sql
from tests.support.waiting import until


async def end_leases(connection: asyncpg.Connection) -> None:
    """As if no relay had been heard of for too long."""
    for table in ("outbox_lanes", "outbox_relays"):
        await connection.execute(f"UPDATE {table} SET expires_at = now() - interval '1 second'")


async def test_a_stale_relays_failure_is_refused(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    (id_,) = await write(connection, ["a"])
    gate.set(Fault(kind="hold"), Fault(kind="permanent"))
    turn = asyncio.create_task(by_hand.turn())
    await until(lambda: is_idle(connection, after="SELECT delivery"))
    async with ByHand.made(environment) as successor:
        await end_leases(connection)
        await successor.beat()
        gate.set(Fault(kind="permanent"))
        await turn
        assert (await state(connection, id_))["state"] == "ready"
        gate.set()
        await successor.turn()
    assert gate.arrived == [id_]


async def test_a_stale_relays_delivered_mark_is_taken_once(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    (id_,) = await write(connection, ["a"])
    gate.set(Fault(kind="stall"))
    turn = asyncio.create_task(by_hand.turn())
    await until(lambda: is_idle(connection, after="SELECT delivery"))
    async with ByHand.made(environment) as successor:
        await end_leases(connection)
        await successor.beat()
        second = asyncio.create_task(successor.turn())
        await until(lambda: has_arrived(gate, [id_, id_]))
        gate.set()
        await asyncio.gather(turn, second)
    assert await connection.fetch("SELECT id, outcome FROM outbox_receipts") == [(id_, "delivered")]
    assert await connection.fetchval("SELECT count(*) FROM outbox_queue") == 0


async def has_arrived(gate: Gate, ids: list[int]) -> bool:
    return gate.arrived == ids


async def test_a_stale_delivered_mark_that_ends_a_hold_lets_its_followers_go_first(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    head, *followers = await write(connection, ["a"] * 3)
    gate.set(Fault(kind="transient"))
    await by_hand.turn()
    await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE id = $1", head)
    gate.set(Fault(kind="stall"))
    turn = asyncio.create_task(by_hand.turn())
    await until(lambda: has_arrived(gate, [head]))
    async with ByHand.made(environment) as successor:
        await end_leases(connection)
        await connection.execute("UPDATE outbox_queue SET due_at = now() + interval '1 hour' WHERE blocks")
        await successor.beat()
        for _ in range(3):  # Its floor is above the followers then.
            await successor.turn()
        gate.set()
        await turn
        newer = await write(connection, ["a"])
        await successor.turn()
    assert gate.arrived == [head, *followers, *newer]


async def test_a_failure_that_was_refused_keeps_its_place(
    by_hand: ByHand, connection: asyncpg.Connection, database: str, gate: Gate
) -> None:
    async with sql.connection(database) as writer:
        await writer.execute("BEGIN")
        ids = await write(writer, ["a"] * 3)
        for _ in range(2):
            await by_hand.turn()
        await writer.execute("COMMIT")
    gate.set(Fault(kind="transient", id=ids[0]))
    await end_leases(connection)
    await by_hand.turn()  # The floor may pass these ids now.
    assert (await state(connection, ids[0]))["attempts"] == 0
    gate.set()
    await by_hand.beat()  # Nobody else had taken the lanes.
    for _ in range(3):
        await by_hand.turn()
    assert gate.arrived == ids


async def test_what_was_fetched_of_a_lane_that_is_lost_meanwhile_is_not_sent(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection, database: str, gate: Gate
) -> None:
    ids = await write(connection, ["a"])
    async with ByHand.made(environment) as successor, sql.connection(database) as locking:
        await locking.execute("BEGIN")
        await locking.execute("LOCK TABLE outbox_queue")
        turn = asyncio.create_task(by_hand.turn())
        await until(lambda: is_waiting(connection))
        await end_leases(connection)
        await successor.beat()
        await by_hand.beat()
        await locking.execute("COMMIT")
        assert await turn == 0
        assert gate.attempts == []
        await successor.turn()
    assert gate.arrived == ids
    assert await lane_of(connection, ids[0]) in successor.owned


async def is_waiting(connection: asyncpg.Connection) -> bool:
    """Whether a pump waits for a lock."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pump by hand'"
        " AND wait_event_type = 'Lock')"
    )
    return found
