"""Relays share the lanes evenly, soon after one joins, leaves or dies."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version

import asyncpg
import pytest

from outbox.distribution import DISTRIBUTION, VERSION
from outbox.schema import LANES
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand
from tests.relay.traffic import SINK, write
from tests.support import sql
from tests.support.relay_process import RelayProcess
from tests.support.waiting import until


async def shares(connection: asyncpg.Connection) -> list[int]:
    """How many lanes each relay owns, and their sum."""
    counts = await connection.fetch(
        "SELECT count(*) FROM outbox_lanes WHERE expires_at > now() GROUP BY owner ORDER BY 1"
    )
    return [count for (count,) in counts]


async def shared(connection: asyncpg.Connection, *expected: int) -> None:
    async def so() -> bool:
        return await shares(connection) == list(expected)

    await until(so, deadline=60.0)


async def test_a_relay_that_comes_alone_takes_all_and_gives_half_to_the_next(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    async with ByHand.made(environment) as first, ByHand.made(environment) as second:
        await first.beat()
        assert await shares(connection) == [LANES]
        await second.beat()
        await first.beat()
        await second.beat()
        assert await shares(connection) == [32, 32]
        assert first.owned | second.owned == set(range(LANES))
        await second.leave()
        await first.beat()
        assert await shares(connection) == [LANES]


async def test_what_it_owns_and_was_not_told_of_is_not_left_unserved(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    """As where the answer to its taking was lost, or somebody changed an epoch by hand."""
    async with ByHand.made(environment) as relay:
        await relay.beat()
        await connection.execute("UPDATE outbox_lanes SET epoch = epoch + 1 WHERE lane < 8")
        await relay.beat()
        assert relay.owned == set(range(LANES))
        gate.set(Fault(kind="transient"))
        ids = await write(connection, [str(number) for number in range(100)])
        await relay.turn()
        assert await connection.fetchval("SELECT count(*) FROM outbox_queue WHERE attempts = 1") == len(ids)


async def test_a_relay_whose_version_is_upgraded_in_place_goes_on(
    environment: dict[str, str], connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ByHand.made(environment) as relay:
        monkeypatch.setattr(sys, "path", [])
        with pytest.raises(PackageNotFoundError):
            version(DISTRIBUTION)
        await relay.beat()
        assert await shares(connection) == [LANES]
        assert await connection.fetchval("SELECT version FROM outbox_relays") == VERSION


async def test_a_lane_is_not_given_away_while_a_pump_works_in_it(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    async with ByHand.made(environment) as first, ByHand.made(environment) as second:
        await first.beat()
        await write(connection, [None])
        gate.set(Fault(kind="hold"))
        turn = asyncio.create_task(first.turn())
        await second.beat()
        await first.beat()
        await second.beat()
        assert await shares(connection) == [LANES]
        gate.set()
        await turn
        await first.beat()
        await second.beat()
        assert await shares(connection) == [32, 32]


async def test_a_new_owner_has_a_higher_epoch(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    async with ByHand.made(environment) as first, ByHand.made(environment) as second:
        await first.beat()
        before = dict(await connection.fetch("SELECT lane, epoch FROM outbox_lanes"))
        await first.leave()
        await second.beat()
        after = dict(await connection.fetch("SELECT lane, epoch FROM outbox_lanes"))
    assert all(after[lane] == before[lane] + 1 for lane in range(LANES))


async def test_relays_that_join_and_leave_share_the_lanes_without_a_lease_that_ends(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    relay_process: Callable[..., Awaitable[RelayProcess]],
) -> None:
    lasting = {**environment, "OUTBOX_LEASE_SECONDS": "300"}
    first = await relay_process(lasting)
    await shared(connection, 64)
    second = await relay_process(lasting)
    await shared(connection, 32, 32)
    await relay_process(lasting)
    await shared(connection, 20, 22, 22)
    for leaving, left in ((first, (32, 32)), (second, (64,))):
        leaving.terminate()
        assert await leaving.exited() == 0
        await shared(connection, *left)


async def test_the_lanes_of_a_relay_that_died_are_shared_when_its_lease_ends(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    relay_process: Callable[..., Awaitable[RelayProcess]],
) -> None:
    relays = [await relay_process(environment) for _ in range(2)]
    await shared(connection, 32, 32)
    relays[0].kill()
    await shared(connection, 64)


async def test_a_sink_that_is_ready_in_the_middle_of_a_heartbeat_gets_its_lanes(
    environment: dict[str, str], connection: asyncpg.Connection, database: str, gate: Gate
) -> None:
    both = {**environment, **gate.environment("other")}
    both["OUTBOX_SINKS"] = f"{environment['OUTBOX_SINKS']},{gate.environment('other')['OUTBOX_SINKS']}"
    async with ByHand.made(both, serving=[SINK]) as relay, sql.connection(database) as locking:
        await relay.beat()
        await locking.execute("BEGIN")
        await locking.execute("LOCK TABLE outbox_lanes")
        beat = asyncio.create_task(relay.beat())
        await until(lambda: relay.is_blocked(connection))
        relay.serve("other")
        await locking.execute("COMMIT")
        await beat
        await relay.beat()
    owned = await connection.fetch(
        "SELECT sink, count(*) FROM outbox_lanes WHERE owner IS NOT NULL GROUP BY 1"
    )
    assert dict(owned) == {SINK: LANES, "other": LANES}
