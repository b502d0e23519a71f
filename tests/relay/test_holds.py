"""A failed delivery holds its key, and nothing but its key, until somebody ends that."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping

import asyncpg

from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand, delivered, is_idle
from tests.relay.traffic import emptied, retry, skip, state, write
from tests.support.relay_process import RelayProcess
from tests.support.waiting import until

SLOW_RETRY = {
    "OUTBOX_ERROR_RETRY_INTERVAL_SECONDS": "30d",  # With full jitter: hardly ever soon.
    "OUTBOX_RETRY_LONGEST_INTERVAL_SECONDS": "30d",
}
HOLD = {"OUTBOX_ON_PARK": "hold"}


async def test_a_key_waits_for_its_first_delivery_and_others_do_not(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, ["a", "b"] * 3)
    gate.set(Fault(kind="transient", id=ids[0]))
    await by_hand.work()
    assert gate.arrived == ids[1::2]
    assert (await state(connection, ids[0]))["state"] == "retrying"
    assert (await state(connection, ids[2]))["state"] == "held"
    gate.set()
    await delivered(by_hand, connection)
    assert gate.arrived == ids[1::2] + ids[::2]


async def test_100_000_followers_of_a_held_key_do_not_slow_its_lane(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    head, *_, last = await write(connection, ["a"] * 100_001)
    gate.set(Fault(kind="transient", key="a"))
    async with ByHand.made({**environment, **SLOW_RETRY}) as owner:
        await owner.beat()
        lane = owner.lane((await state(connection, head))["lane"])

        async def has_walked_past_them() -> bool:
            await owner.turn()
            return lane.floor == last

        await until(has_walked_past_them)
        await connection.execute("VACUUM ANALYZE outbox_queue")
        await owner.prepare_fetch()
        assert (await owner.explain_fetch()).rows_read < 100
        await owner.leave()

    async with ByHand.made({**environment, **SLOW_RETRY}) as successor:
        await successor.beat()
        gate.set()
        lane = successor.lane(lane.number)

        async def walked_too() -> bool:
            await successor.turn()
            return lane.floor == last

        await until(walked_too)
        assert gate.arrived == []
        await successor.prepare_fetch()
        assert (await successor.explain_fetch()).rows_read < 100
        await retry(environment, head)
        for _ in range(3):
            await successor.turn()
    assert len(gate.arrived) >= 4_000
    assert gate.arrived == list(range(head, head + len(gate.arrived)))


async def test_what_waited_for_a_skipped_delivery_goes_before_what_is_written_then(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    head, *followers = await write(connection, ["a"] * 4)
    gate.set(Fault(kind="permanent", id=head))
    async with ByHand.made({**environment, **HOLD}) as owner:
        await owner.beat()
        for _ in range(4):
            await owner.turn()
        await skip(environment, head)
        newer = await write(connection, ["a"])
        await owner.turn()
    assert gate.arrived == followers + newer


async def test_a_skip_in_the_middle_of_a_round_is_not_forgotten(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    head, *followers = await write(connection, ["a"] * 4)
    gate.set(Fault(kind="permanent", id=head), Fault(kind="hold", key="b"))
    async with ByHand.made({**environment, **HOLD}) as owner:
        await owner.beat()
        for _ in range(2):
            await owner.turn()
        other = await write(connection, ["b"])
        turn = asyncio.create_task(owner.turn())  # It read the queue when the key was held.
        await until(lambda: is_idle(connection, after="SELECT delivery"))
        await skip(environment, head)
        gate.set()
        await turn
        assert gate.arrived == other
        await owner.turn()
    assert gate.arrived == other + followers


async def outbox(environment: Mapping[str, str], *command: str) -> None:
    """Run the command `outbox` in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outbox", *command, env={**os.environ, **environment}
    )
    assert await process.wait() == 0


async def test_retry_and_skip_by_other_processes_release_keys(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    gate: Gate,
    relay_process: Callable[..., Awaitable[RelayProcess]],
) -> None:
    retried, skipped, *followers = await write(connection, ["a", "b"] * 3)
    gate.set(Fault(kind="permanent", id=retried), Fault(kind="permanent", id=skipped))
    await relay_process({**environment, **HOLD})

    async def have_parked() -> bool:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM outbox_queue WHERE parked_at IS NOT NULL"
        )
        return count == 2

    await until(have_parked)
    gate.set()
    await outbox(environment, "retry", str(retried))
    await emptied(connection, but=3)
    assert gate.arrived == [retried, *followers[::2]]
    await outbox(environment, "skip", str(skipped), "--yes")
    await emptied(connection)
    assert gate.arrived == [retried, *followers[::2], *followers[1::2]]
