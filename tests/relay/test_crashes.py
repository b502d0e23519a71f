"""A relay that is killed or frozen at the worst moment loses nothing; what it sent comes again at most."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from outbox.observe import watch
from outbox.relay import Relay
from outbox.testing import Fault, Gate
from tests.relay.traffic import arrived, emptied, inversions, settings_of, state, unexplained, write
from tests.support.relay_process import RelayProcess

StartRelay = Callable[..., Awaitable[RelayProcess]]

SHORT_LEASE = {
    "OUTBOX_LEASE_SECONDS": "2",
    "OUTBOX_SEND_TIMEOUT_SECONDS": "1",
    "OUTBOX_PUMPS": "1",
    "OUTBOX_ERROR_RETRY_INTERVAL_SECONDS": "0.5",
}


@pytest.mark.parametrize("seam", ["pump.fetched", "pump.sent", "pump.settling"])
async def test_a_relay_killed_at_a_seam_loses_nothing(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    gate: Gate,
    relay_process: StartRelay,
    seam: str,
) -> None:
    sent_twice = seam != "pump.fetched"
    environment |= SHORT_LEASE
    ids = await write(connection, ["a", "b", None] * 10)
    victim = await relay_process(environment, kill_at=seam)
    assert await victim.exited() == -9
    assert sorted(gate.arrived) == (ids if sent_twice else [])
    async with Relay(settings_of(environment)):
        await emptied(connection)
    assert sorted(gate.arrived) == (sorted(ids * 2) if sent_twice else ids)
    assert inversions(gate.attempts) == []
    assert unexplained(gate.attempts, {victim.pid}) == []


async def test_a_relay_killed_in_the_middle_of_settling_loses_nothing(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, relay_process: StartRelay
) -> None:
    environment |= SHORT_LEASE
    done = await write(connection, ["a"] * 3)
    failing, behind = await write(connection, ["b"] * 2)
    (late,) = await write(connection, ["c"], expires_in=3600)
    await connection.execute("UPDATE outbox SET expires_at = now() WHERE id = $1", late)
    gate.set(Fault(kind="transient", key="b"))
    # What arrived and what failed is recorded by then, what came too late is not.
    victim = await relay_process(environment, kill_at="delivery.retry")
    assert await victim.exited() == -9
    assert [(await state(connection, id_))["state"] for id_ in done] == ["delivered"] * 3
    assert (await state(connection, failing))["attempts"] == 1
    assert (await state(connection, late))["state"] == "ready"
    gate.set()
    async with Relay(settings_of(environment)):
        await emptied(connection)
    assert (await state(connection, late))["state"] == "expired"
    assert gate.arrived == [*done, failing, behind]


async def test_a_relay_frozen_for_longer_than_its_lease_is_replaced_and_comes_back(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, relay_process: StartRelay
) -> None:
    environment |= SHORT_LEASE
    ids = await write(connection, ["a"] * 3 + ["b"] * 3)
    gate.set(Fault(kind="transient", key="b"), Fault(kind="stall"))
    frozen = await relay_process(environment)
    await arrived(gate, 3)
    frozen.pause()
    gate.set()
    with watch() as events:
        async with Relay(settings_of(environment)):
            await events.wait_for("lanes.taken")
            await emptied(connection)
            frozen.resume()
            await frozen.event("lanes.taken", count=2)
            later = await write(connection, ["a", "b"] * 3)
            await emptied(connection)
            # They share again.
            await events.wait_for("lanes.released")
    assert gate.arrived[:3] == ids[:3]
    assert sorted(gate.arrived[3:]) == ids + later
    assert inversions(gate.attempts) == []
    assert unexplained(gate.attempts, {frozen.pid}) == []
    receipts = await connection.fetch("SELECT outcome, count(*) FROM outbox_receipts GROUP BY 1")
    assert [tuple(row) for row in receipts] == [("delivered", len(ids + later))]
    frozen.terminate()
    assert await frozen.exited() == 0
