"""A waker tells relays of a commit once more at the end, and lives through a database that goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox import Waker, create_engine
from outbox.schema import in_schema
from outbox.schema.waking import CHANNEL
from outbox.settings import Settings
from tests.support import sql
from tests.support.waiting import until

Heard = list[None]


@pytest.fixture
async def heard(database: str) -> AsyncIterator[Heard]:
    """Grows by one with each wake."""
    wakes: Heard = []
    async with sql.connection(database) as connection:
        channel = await connection.fetchval(f"SELECT {in_schema(CHANNEL, None)}")
        await connection.add_listener(channel, lambda *_: wakes.append(None))
        yield wakes


@pytest.fixture
def settings(database: str) -> Settings:
    return Settings(database_url=database)


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    made = create_engine(settings)
    yield made
    await made.dispose()


async def more(wakes: Heard, than: int) -> None:
    async def are() -> bool:
        return len(wakes) > than

    await until(are)


async def test_a_commit_wakes_and_many_at_once_wake_together(
    settings: Settings, engine: AsyncEngine, heard: Heard
) -> None:
    async with Waker(engine, settings=settings) as waker:
        waker.wake()
        await more(heard, 0)
        for _ in range(1_000):
            waker.wake()
        await more(heard, 1)
        assert len(heard) < 100


async def test_it_is_woken_from_another_thread(settings: Settings, engine: AsyncEngine, heard: Heard) -> None:
    async with Waker(engine, settings=settings) as waker:
        with ThreadPoolExecutor(1) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, waker.wake)
        await more(heard, 0)


async def test_it_lives_through_a_connection_that_ends(
    settings: Settings, engine: AsyncEngine, heard: Heard, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging.getLogger("outbox.waker"), "warning", lambda text, *_: said.append(text))
    async with Waker(engine, settings=settings) as waker:
        waker.wake()
        await more(heard, 0)
        async with sql.connection(database) as other:
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%, pg_notify(%'"
                " AND datname = current_database() AND pid <> pg_backend_pid()"
            )
        before = len(heard)
        waker.wake()
        await more(heard, before)
        assert said


async def test_outside_of_its_block_it_does_nothing(settings: Settings, engine: AsyncEngine) -> None:
    waker = Waker(engine, settings=settings)
    waker.wake()
    async with waker:
        pass
    waker.wake()
