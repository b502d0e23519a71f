"""What the pump's statements read and how often they are asked, whatever the tables hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.relay.by_hand import ByHand, Plan
from tests.relay.traffic import write
from tests.support.postgres import Cluster


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
