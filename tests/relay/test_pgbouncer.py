"""Behind PgBouncer in transaction mode everything works, and nobody else inherits the planner settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from outbox.observe import watch
from outbox.relay import Relay
from outbox.relay.store import _PLANNER, relay_connection
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand
from tests.relay.traffic import emptied, inversions, settings_of, write
from tests.support import programs, servers, sql
from tests.support.pgbouncer import PgBouncer

_SETTINGS = {**_PLANNER, "row_security": "off"}
SETTINGS = "SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[])"


@pytest.fixture
async def pooled(database: str, environment: dict[str, str]) -> AsyncIterator[dict[str, str]]:
    """The settings of a relay behind a pool of fewer connections than it has itself."""
    program = programs.find("pgbouncer")
    if program is None:
        servers.missing("pgbouncer is not installed")
    async with AsyncExitStack() as stack:
        pgbouncer = await servers.start(stack, lambda: PgBouncer(program, database, pool_size=3))
        yield {
            **environment,
            "OUTBOX_DATABASE_URL": pgbouncer.url,
            "OUTBOX_DATABASE_POOLER": "transaction",
        }


async def test_a_relay_works_behind_a_pooler_and_leaves_no_setting_behind(
    pooled: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    usual = dict(await connection.fetch(SETTINGS, list(_SETTINGS)))
    gate.set(Fault(kind="transient", probability=0.02))
    url, done = pooled["OUTBOX_DATABASE_URL"], asyncio.Event()
    seen = []

    async def look() -> None:
        async with sql.connection(url, statement_cache_size=0) as other:
            while not done.is_set():
                async with other.transaction():
                    seen.append(dict(await other.fetch(SETTINGS, list(_SETTINGS))))

    with watch() as events:
        async with asyncio.TaskGroup() as group:
            lookers = [group.create_task(look()) for _ in range(2)]
            async with Relay(settings_of({**pooled, "OUTBOX_BATCH_SIZE": "50"})):
                ids = await write(connection, [f"key-{number // 10 % 30}" for number in range(3_000)])
                await events.wait_for("lanes.taken")
                async with Relay(settings_of(pooled)):
                    await events.wait_for("lanes.released")
                    await emptied(connection)
            done.set()
    assert sorted(gate.arrived) == ids
    assert inversions(gate.attempts) == []
    assert len(seen) > 10
    assert {tuple(sorted(settings.items() - usual.items())) for settings in seen} == {()}
    assert lookers


async def test_the_planner_settings_are_in_force_behind_a_pooler(pooled: dict[str, str]) -> None:
    async with ByHand.made(pooled) as relay:
        assert dict(await relay.ask(SETTINGS, list(_SETTINGS))) == _SETTINGS


async def test_the_planner_settings_survive_a_reset_of_the_session(environment: dict[str, str]) -> None:
    async with relay_connection(settings_of(environment), "test") as session:
        for _ in range(2):
            assert dict(await session.fetch(SETTINGS, list(_SETTINGS))) == _SETTINGS
            await session.reset()
