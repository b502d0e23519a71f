"""What the pump's statements read and how often they are asked, whatever the tables hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand, Plan
from tests.relay.traffic import write
from tests.support.postgres import Cluster
from tests.support.waiting import until


@pytest.fixture
async def database(every_postgres: Cluster) -> AsyncIterator[str]:
    async with every_postgres.database(template=await every_postgres.template()) as url:
        yield url


KEYS = [f"key-{number}" for number in range(1_000)] * 100


def assert_is_cheap(plan: Plan) -> None:
    assert plan.rows == 2_000
    # Of a row: the queue's, that of outbox, and the queue's once more in a lane that did not fill the batch.
    assert plan.rows_read < 3 * plan.rows + 500
    assert plan.scans <= {"Index Scan", "Index Only Scan"}


async def test_a_fetch_planned_on_empty_tables_is_cheap_on_full_ones(
    by_hand: ByHand, connection: asyncpg.Connection
) -> None:
    await by_hand.prepare_fetch()
    await write(connection, KEYS)
    assert_is_cheap(await by_hand.explain_fetch())


async def test_a_fetch_planned_on_full_tables_is_cheap(
    by_hand: ByHand, connection: asyncpg.Connection
) -> None:
    await write(connection, KEYS)
    await connection.execute("ANALYZE")
    await by_hand.prepare_fetch()
    assert_is_cheap(await by_hand.explain_fetch())


async def test_an_idle_pump_asks_once_a_tick(by_hand: ByHand, connection: asyncpg.Connection) -> None:
    await write(connection, ["a"])
    await by_hand.work()
    statements = by_hand.statements_of_the_pump()
    for _ in range(10):
        await by_hand.turn()
    await asyncio.sleep(0)  # The last is told in the loop's next turn.
    assert len(statements) == 10


@pytest.mark.parametrize(
    ("faults", "late"),
    [
        ([], {}),
        ([Fault(kind="transient")], {}),
        ([Fault(kind="permanent")], {}),
        ([Fault(kind="unavailable", arrives=True, scope="destination")], {}),
        ([], {"available_in": -9, "expires_in": -5}),
    ],
    ids=["delivered", "failed", "parked", "uncertain", "expired"],
)
async def test_settling_reads_few_rows_though_the_queue_was_empty_when_it_was_analyzed(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    gate: Gate,
    faults: list[Fault],
    late: dict[str, Any],
) -> None:
    """A backlog after a quiet hour: the queue has many pages, and by its statistics no rows."""
    gate.set(*faults)
    await write(connection, KEYS[:20_000])
    await connection.execute("DELETE FROM outbox_queue; TRUNCATE outbox_receipts")
    await connection.execute("VACUUM (ANALYZE, TRUNCATE off) outbox_queue")
    await write(connection, [None] * 20_000, **late)
    await connection.fetchval("SELECT pg_stat_reset()")
    async with ByHand.made(environment) as relay:
        await relay.beat()
        await relay.turn()
        await relay.leave()

    async def is_told() -> bool:
        # A session tells the statistics what it read when it ends, if not before.
        there = "application_name LIKE '%by hand' AND datname = current_database()"
        return not await connection.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {there}")

    await until(is_told)
    read = await connection.fetchval(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'outbox_queue'"
    )
    # The DELETE above may be told late. To look at all of the queue, or a lane, for each would be a million.
    assert 2_000 <= read < 60_000
