"""A pump that waits is woken by what is written to its lanes, whatever order it is committed in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from outbox import Waker, create_engine
from outbox.observe import watch
from outbox.relay import Relay
from outbox.relay.bell import WRITTEN, Bell, News, Sleeper
from outbox.relay.store import relay_connection
from outbox.schema import in_schema
from outbox.testing import Gate
from tests.relay.by_hand import Plan
from tests.relay.traffic import SINK, arrived, settings_of, write
from tests.support import sql
from tests.support.waiting import until

HOURS = {"OUTBOX_POLL_INTERVAL_SECONDS": "2h"}


def test_a_row_is_news_once_also_if_a_later_one_was_seen_before_it() -> None:
    news = News()
    assert news.learn(2, [(2, "s", 1)]) == [("s", 1)]
    assert news.learn(2, [(1, "s", 0), (2, "s", 1)]) == [("s", 0)]
    for _ in range(10):
        assert news.learn(2, [(1, "s", 0), (2, "s", 1)]) == []
    assert news.floor == 2


def test_ids_that_are_given_anew_are_news_again() -> None:
    news = News()
    for _ in range(10):
        news.learn(1_000, [(1_000, "s", 1)])
    assert news.learn(1, []) == []
    assert news.floor == 0
    assert news.learn(1, [(1, "s", 1)]) == [("s", 1)]


async def test_pumps_that_would_wait_for_hours_are_woken_by_who_writes(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a writer, and by nothing else: the bell does not look by itself either."""
    monkeypatch.setattr("outbox.relay.bell._SOON_FOR_SECONDS", 0.0)
    settings = settings_of(environment | HOURS)
    engine = create_engine(settings)
    with watch() as events:
        async with Relay(settings), Waker(engine, settings=settings) as waker:
            await events.wait_for("lanes.taken")
            await events.wait_for("bell.listening")
            for count in range(1, 4):
                await write(connection, [None])
                waker.wake()
                await arrived(gate, count)
    await engine.dispose()


async def test_a_relay_whose_pumps_would_wait_for_hours_stops_at_once(environment: dict[str, str]) -> None:
    with watch() as events:
        async with Relay(settings_of(environment | HOURS)), asyncio.timeout(20):
            await events.wait_for("lanes.taken")


@asynccontextmanager
async def ringing(environment: dict[str, str]) -> AsyncIterator[list[Sleeper]]:
    """Sleepers who sleep for hours, and a bell."""
    settings, sleepers, ending = settings_of(environment), [Sleeper() for _ in range(64)], asyncio.Event()
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(relay_connection(settings, "a bell"))
        bell = Bell(settings.database_schema, {SINK: sleepers}, longest=0.005)
        async with asyncio.TaskGroup() as tasks:
            for sleeper in sleepers:
                tasks.create_task(sleeper.sleep(7_200))
            await until(lambda: said(all(sleeper.waits for sleeper in sleepers)))
            running = tasks.create_task(bell.run(connection, ending))
            yield sleepers
            ending.set()
            await running
            bell.wake_all()


async def test_what_is_committed_after_a_later_id_wakes_its_pump_too(
    environment: dict[str, str], database: str, connection: asyncpg.Connection
) -> None:
    async with ringing(environment) as sleepers, sql.connection(database) as other:
        early = other.transaction()
        await early.start()
        (before,) = await write(other, ["k"])
        (after,) = await write(connection, ["l"])
        lanes = dict(await connection.fetch("SELECT id, lane FROM outbox_queue"))
        await until(lambda: said(not sleepers[lanes[after]].waits))
        await early.commit()
        lanes = dict(await connection.fetch("SELECT id, lane FROM outbox_queue"))
        await until(lambda: said(not sleepers[lanes[before]].waits))
        assert sum(not sleeper.waits for sleeper in sleepers) == 2


async def said(holds: bool) -> bool:
    return holds


async def test_a_look_reads_little_whatever_is_not_committed_yet(
    connection: asyncpg.Connection, database: str
) -> None:
    async with sql.connection(database) as other, other.transaction():
        await write(other, ["k"] * 5_000)
        statement = "EXPLAIN (ANALYZE, FORMAT JSON) " + in_schema(WRITTEN.replace("$1", "0"), None)
        await connection.execute("SET enable_seqscan = off")
        assert Plan.of(await connection.fetchval(statement)).rows_read < 300
