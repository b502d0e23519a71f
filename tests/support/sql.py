"""Sessions with the database under test, and waiting for what they do to each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from outbox.settings import Settings


@asynccontextmanager
async def engine(url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    """SQLAlchemy on asyncpg."""
    made = create_async_engine(Settings(database_url=url).sqlalchemy_url, **options)
    try:
        yield made
    finally:
        await made.dispose()


@asynccontextmanager
async def connection(
    url: str, *, user: str | None = None, **options: Any
) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection; as another role with `user`."""
    if user is not None:
        url = make_url(url).set(username=user).render_as_string(hide_password=False)
    made = await asyncpg.connect(url, **options)
    try:
        yield made
    finally:
        await made.close()


async def pid_of(session: AsyncSession | AsyncConnection) -> int:
    """The server process of a session."""
    pid: int = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    return pid


async def blocked(observer: asyncpg.Connection, pid: int) -> None:
    """Return once that server process waits for another's lock."""

    async def waits() -> bool:
        found: bool = await observer.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid)
        return found

    await until(waits)


async def until(condition: Callable[[], Awaitable[bool]], *, deadline: float = 10.0) -> None:
    """Return once the condition holds; TimeoutError after `deadline` seconds."""
    async with asyncio.timeout(deadline):
        while not await condition():  # noqa: ASYNC110 - a database has no event to wait on
            await asyncio.sleep(0.005)
