"""A relay that is asked to stop finishes what it has begun, and only that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg

from outbox.relay import Relay
from outbox.testing import Fault, Gate
from tests.relay.traffic import arrived, emptied, settings_of, write
from tests.support.relay_process import RelayProcess

StartRelay = Callable[..., Awaitable[RelayProcess]]


async def test_sigterm_settles_what_is_on_its_way_and_releases_the_lanes(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, relay_process: StartRelay
) -> None:
    gate.set(Fault(kind="stall"))
    ids = await write(connection, ["a"] * 3)
    relay = await relay_process(environment)
    await arrived(gate, 3)
    (later,) = await write(connection, ["a"])
    relay.terminate()
    await relay.event("relay.stopping", reason="SIGTERM")
    gate.set()
    assert await relay.exited() == 0
    assert gate.arrived == ids
    assert await connection.fetchval("SELECT array_agg(id) FROM outbox_queue") == [later]
    assert await connection.fetchval("SELECT count(owner) FROM outbox_lanes") == 0
    assert await connection.fetchval("SELECT count(*) FROM outbox_relays") == 0


async def test_a_second_signal_ends_it_at_once(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, relay_process: StartRelay
) -> None:
    gate.set(Fault(kind="stall"))
    ids = await write(connection, ["a"])
    relay = await relay_process({**environment, "OUTBOX_LEASE_SECONDS": "20"})
    await arrived(gate, 1)
    relay.terminate()
    await relay.event("relay.stopping")
    relay.terminate()
    assert await relay.exited(deadline=5.0) == -15
    assert await connection.fetchval("SELECT array_agg(id) FROM outbox_queue") == ids


async def test_what_takes_longer_than_the_grace_period_is_left_to_the_next_relay(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, relay_process: StartRelay
) -> None:
    gate.set(Fault(kind="stall"))
    ids = await write(connection, ["a"] * 2)
    relay = await relay_process({**environment, "OUTBOX_SHUTDOWN_GRACE_SECONDS": "0.3"})
    await arrived(gate, 2)
    relay.terminate()
    assert await relay.exited(deadline=10.0) == 1
    assert any("OUTBOX_SHUTDOWN_GRACE_SECONDS=0.3" in line for line in relay.other_output)
    gate.set()
    async with Relay(settings_of(environment)):
        await emptied(connection)
    assert gate.arrived == ids * 2


async def test_a_relay_in_a_service_stops_with_its_block(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, ["a"] * 3)
    async with Relay(settings_of(environment)):
        await emptied(connection)
    assert gate.arrived == ids
    assert await connection.fetchval("SELECT count(owner) FROM outbox_lanes") == 0
