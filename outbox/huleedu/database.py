"""A service's connections to its database, and the settings for them."""

from __future__ import annotations

import math
import socket
import time
from typing import Any, Literal

import asyncpg
from pydantic import Field
from sqlalchemy import event, text
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox import create_engine
from outbox.errors import describe
from outbox.settings import Port, PostgresUrl, ServiceSettings, Settings

_STATEMENT_SECONDS = 10.0
"""A statement takes milliseconds; what takes longer has met a network that swallows, or a stuck lock."""
_SILENT_SECONDS = 10
"""The kernel gives a connection up on which nothing is acknowledged for this long."""

_RESTED_SECONDS = 1.0
_RESTS_SINCE = "rests since"

DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What comes of a database that is away or refuses; SQLAlchemy does not wrap all of it."""


class DatabaseSettings(ServiceSettings):
    """The database of a service, and where it is asked over HTTP."""

    database_url: PostgresUrl
    """`postgresql://user:password@host:port/database`, where the outbox's tables are too."""
    database_connections: int = Field(10, ge=1)
    """Connections to the database, at the most."""
    database_pooler: Literal["none", "transaction"] = "none"
    """`transaction` behind PgBouncer in transaction mode: nothing is prepared then."""

    host: str = "127.0.0.1"
    """The address to serve HTTP on."""
    port: Port = 0
    """The port to serve HTTP on; 0 takes a free one."""


async def trouble_with(engine: AsyncEngine) -> list[str]:
    """Returns why the database does not answer, in one line; nothing if it does."""
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except DATABASE_ERRORS as error:
        return [f"database: {describe(error)}"]
    return []


def engine_of(settings: DatabaseSettings) -> AsyncEngine:
    """Makes a pool of connections; nothing is connected yet."""
    engine = create_engine(
        Settings(database_url=settings.database_url, database_pooler=settings.database_pooler),
        application_name=settings.service_name,
        command_timeout=_STATEMENT_SECONDS,
        pool_size=settings.database_connections,
        max_overflow=0,
    )
    event.listen(engine.sync_engine, "connect", _notice_silence)
    event.listen(engine.sync_engine, "checkin", _begin_rest)
    event.listen(engine.sync_engine, "checkout", _ask_if_rested)
    return engine


def _begin_rest(_adapted: object, record: Any) -> None:
    record.info[_RESTS_SINCE] = time.monotonic()


def _ask_if_rested(adapted: Any, record: Any, _: object) -> None:
    """Has a connection answer before it is used: after a restart of the database all in the pool are dead.

    Not one that was used a moment ago: an answer takes three round trips, a quarter of a small transaction's.
    """
    if adapted.driver_connection.is_closed():
        raise InvalidatePoolError
    if time.monotonic() - record.info.get(_RESTS_SINCE, math.inf) < _RESTED_SECONDS:
        return
    try:
        adapted.ping()
    except Exception as error:
        raise InvalidatePoolError from error


def _notice_silence(adapted: Any, _record: object) -> None:
    """Has the kernel give up a connection that a network has swallowed, unless the address says when."""
    connected = adapted.driver_connection._transport.get_extra_info("socket")  # noqa: SLF001 - no public way
    if connected.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    for option, unsaid, value in (
        (socket.TCP_USER_TIMEOUT, 0, _SILENT_SECONDS * 1_000),
        (socket.TCP_KEEPIDLE, _KEEPIDLE_OF_LINUX, _SILENT_SECONDS // 2),
        (socket.TCP_KEEPINTVL, _KEEPINTVL_OF_LINUX, 2),
    ):
        if connected.getsockopt(socket.IPPROTO_TCP, option) == unsaid:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)


_KEEPIDLE_OF_LINUX, _KEEPINTVL_OF_LINUX = 7_200, 75
