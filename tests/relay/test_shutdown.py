"""A relay that is asked to stop finishes what it has begun, and only that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic

import asyncpg
import pytest

from outbox.devstack import Postgres
from outbox.observe import EVENTS, watch
from outbox.relay import Relay
from outbox.testing import Fault, Gate, GatedSink
from outbox.web.readiness import reasons
from tests.relay.odd_sinks import Endless, odd
from tests.relay.traffic import QUICK, SINK, arrived, emptied, settings_of, write
from tests.support import sql
from tests.support.relay_process import RelayProcess
from tests.support.waiting import BOUNDED

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
    assert await relay.exited(deadline=BOUNDED) == -15
    assert await connection.fetchval("SELECT array_agg(id) FROM outbox_queue") == ids


async def test_what_takes_longer_than_the_grace_period_is_left_to_the_next_relay(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, relay_process: StartRelay
) -> None:
    gate.set(Fault(kind="stall"))
    ids = await write(connection, ["a"] * 2)
    relay = await relay_process({**environment, "OUTBOX_SHUTDOWN_GRACE_SECONDS": "0.3"})
    await arrived(gate, 2)
    relay.terminate()
    assert await relay.exited() == 1
    assert any("OUTBOX_SHUTDOWN_GRACE_SECONDS=0.3" in line for line in relay.other_output)
    gate.set()
    async with Relay(settings_of(environment)):
        await emptied(connection)
    assert gate.arrived == ids * 2


@pytest.mark.parametrize("hangs", ["sink", "database", "both"])
async def test_all_of_a_shutdown_ends_within_the_grace_period(
    hangs: str, own_postgres: Postgres, own_database: str, gate: Gate, relay_process: StartRelay
) -> None:
    sink = GatedSink if hangs == "database" else Endless
    environment = {**QUICK, **gate.environment(SINK), "OUTBOX_DATABASE_URL": own_database}
    gate.set(Fault(kind="stall"))
    async with sql.connection(own_database) as connection:
        await write(connection, ["a"])
    # No statement is given up before: that would end it in good order.
    lasting = {"OUTBOX_LEASE_SECONDS": "30", "OUTBOX_SHUTDOWN_GRACE_SECONDS": "3"}
    relay = await relay_process({**odd(environment, sink), **lasting})
    await arrived(gate, 1)
    if hangs != "sink":
        own_postgres.pause()
    relay.terminate()
    await relay.event("relay.stopping")
    began = monotonic()
    gate.set()
    code = await relay.exited()
    own_postgres.resume()
    assert monotonic() - began < 8.0
    assert code == 1
    assert any("OUTBOX_SHUTDOWN_GRACE_SECONDS=3" in line for line in relay.other_output)


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
async def test_a_relay_in_a_service_that_ends_by_itself_says_so(
    how: str, environment: dict[str, str], connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BaseException] = []
    relay = Relay(settings_of(environment), on_failure=told.append)
    with watch() as events, suppress(BaseExceptionGroup, asyncio.CancelledError):
        async with relay:
            await events.wait_for("relay.ready")
            assert reasons(relay.health(), 60) == []
            assert relay._task is not None
            if how == "raises":
                monkeypatch.setattr(relay._lanes, "tick", None)
            else:
                relay._task.cancel()
            failed = await events.wait_for("relay.failed")
            (reason,) = reasons(relay.health(), 60)
            assert reason == f"the relay ended by itself: {failed.fields['reason']}"
            assert failed.fields["relay"]
            assert len(told) == 1
    assert EVENTS["relay.failed"].level == logging.CRITICAL
    assert await connection.fetchval("SELECT count(*) FROM outbox_queue") == 0


async def test_a_relay_in_a_service_stops_with_its_block(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, ["a"] * 3)
    async with Relay(settings_of(environment)):
        await emptied(connection)
    assert gate.arrived == ids
    assert await connection.fetchval("SELECT count(owner) FROM outbox_lanes") == 0
