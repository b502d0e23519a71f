"""A machine that sleeps: its leases go on, though its processes stand still."""

from __future__ import annotations

import asyncio
from time import monotonic

import asyncpg

from outbox.testing import Gate
from tests.relay.by_hand import ByHand
from tests.relay.odd_sinks import Slow, odd
from tests.relay.traffic import state, write
from tests.support.clock import Clock
from tests.support.waiting import BOUNDED, until


async def test_a_relay_that_slept_past_its_lease_begins_no_send(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    clock = Clock()
    ids = await write(connection, ["a"])
    async with ByHand.made(environment, clock=clock) as relay:
        await relay.beat()
        clock.now += 61
        assert await relay.turn() == 0
        assert gate.attempts == []
        await relay.beat()
        assert await relay.turn() == 1
    assert gate.arrived == ids


async def test_a_send_during_which_the_machine_sleeps_ends_when_it_wakes(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    clock = Clock()
    (id_,) = await write(connection, ["odd"])
    async with ByHand.made(odd(environment, Slow), clock=clock) as relay:
        await relay.beat()
        asked = Slow.asked
        turn = asyncio.create_task(relay.turn())

        async def is_asked() -> bool:
            return Slow.asked > asked

        await until(is_asked)
        clock.now += 3_600
        woke = monotonic()
        await turn
        assert monotonic() - woke < BOUNDED
        row = await state(connection, id_)
        assert (row["attempts"], row["uncertain"]) == (0, True)
