"""Sessions with the database under test, and waiting for what they do to each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from outbox.settings import Settings
from tests.support.waiting import until


@asynccontextmanager
async def engine(url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    """SQLAlchemy on asyncpg."""
    made = create_async_engine(Settings(database_url=url).sqlalchemy_url, **options)
    try:
        yield made
    finally:
        await made.dispose()


@asynccontextmanager
async def begun(url: str) -> AsyncIterator[AsyncConnection]:
    """A transaction through SQLAlchemy, committed in the end."""
    async with engine(url) as made, made.begin() as connection:
        yield connection


@asynccontextmanager
async def connection(url: str, **options: Any) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection."""
    made = await asyncpg.connect(url, **options)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def role(url: str) -> AsyncIterator[tuple[str, str]]:
    """A new role without rights: its name, and the URL as which it connects. Dropped with its grants."""
    name = f"role_{uuid4().hex[:12]}"
    async with connection(url) as owner:
        await owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        try:
            yield name, make_url(url).set(username=name, password="x").render_as_string(hide_password=False)
        finally:
            await owner.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


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
