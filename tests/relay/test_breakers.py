"""What is down is left alone, costs nobody an attempt, and is found again by one probe."""

from __future__ import annotations

from typing import Literal

import asyncpg
import pytest

from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand, delivered
from tests.relay.traffic import inversions, state, write
from tests.support.waiting import BOUNDED, until


async def attempts(connection: asyncpg.Connection) -> int:
    found: int = await connection.fetchval("SELECT coalesce(sum(attempts), 0) FROM outbox_queue")
    return found


async def test_an_outage_counts_no_attempt_and_order_outlives_it(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, ["a", "a", "b", "b", None] * 20)
    gate.set(Fault(kind="unavailable"))
    await by_hand.turn()
    for probes in range(1, 4):
        before = len(gate.attempts)

        async def has_probed(before: int = before) -> bool:
            await by_hand.turn()
            return len(gate.attempts) > before

        await until(has_probed)
        assert len(gate.attempts) == before + 1, f"after {probes} probes"
    assert await attempts(connection) == 0
    gate.set()
    await delivered(by_hand, connection)
    assert sorted(gate.arrived) == ids
    assert inversions(gate.attempts) == []


async def test_while_a_sink_is_down_nothing_is_read(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    async with ByHand.made(environment | {"OUTBOX_BREAKER_LONGEST_SECONDS": "1h"}) as relay:
        await relay.beat()
        await write(connection, ["a"] * 3)
        gate.set(Fault(kind="unavailable"))
        await relay.turn()
        before = len(gate.attempts)
        gate.set()
        for _ in range(3):
            assert await relay.turn() == 0
    assert len(gate.attempts) == before


async def test_one_destination_is_down_and_others_go_on(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    down = await write(connection, ["a", "b"] * 5, destination="down")
    up = await write(connection, ["a", "b"] * 5, destination="up")
    gate.set(Fault(kind="unavailable", destination="down", scope="destination"))
    for _ in range(5):
        await by_hand.turn()
    assert gate.arrived == up
    assert await attempts(connection) == 0
    later = await write(connection, ["a"], destination="down")
    gate.set()
    await delivered(by_hand, connection)
    assert sorted(gate.arrived) == sorted(up + down + later)
    assert inversions(gate.attempts) == []


async def test_a_part_is_down_and_only_its_key_waits(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, ["a", "b"] * 3)
    gate.set(Fault(kind="unavailable", key="a", scope="part"))
    await by_hand.work()
    assert gate.arrived == ids[1::2]
    assert await attempts(connection) == 0
    assert (await state(connection, ids[0]))["state"] == "retrying"
    gate.set()
    await delivered(by_hand, connection)
    assert gate.arrived == ids[1::2] + ids[::2]


async def test_what_was_scheduled_is_found_again_after_an_outage(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, ["a"] * 3, available_in=0.01)
    gate.set(Fault(kind="unavailable"))

    async def was_tried() -> bool:
        await by_hand.turn()
        return len(gate.attempts) >= 3

    await until(was_tried)
    gate.set()
    await delivered(by_hand, connection)
    assert gate.arrived == ids


@pytest.mark.parametrize("scope", ["sink", "destination"])
async def test_what_expired_in_an_outage_does_not_use_up_the_probe(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate, scope: Literal["sink", "destination"]
) -> None:
    gate.set(Fault(kind="unavailable", scope=scope))
    await write(connection, ["a"] * 1_000, expires_in=3600)
    await by_hand.turn()
    assert gate.attempts
    await connection.execute("UPDATE outbox SET expires_at = now()")
    (fresh,) = await write(connection, ["a"])
    gate.set()
    await delivered(by_hand, connection, deadline=BOUNDED)
    assert gate.arrived == [fresh]


async def test_a_probe_that_fails_by_its_own_fault_keeps_nobody_back(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    first, second = await write(connection, ["a", "b"])
    gate.set(Fault(kind="unavailable"))
    await by_hand.turn()
    gate.set(Fault(kind="permanent", id=first))
    await delivered(by_hand, connection, but=1)
    assert gate.arrived == [second]
