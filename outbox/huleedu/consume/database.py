"""A service's connections to its database."""

from __future__ import annotations

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from outbox.huleedu.consume.settings import ConsumerSettings
from outbox.settings import Settings

_CONNECT_SECONDS = 10.0
_STATEMENT_SECONDS = 30.0

DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What comes of a database that is away or refuses; SQLAlchemy wraps only what comes after connecting."""


def engine_of(settings: ConsumerSettings) -> AsyncEngine:
    """A pool of connections; nothing is connected yet."""
    dsn = Settings(database_url=settings.database_url).asyncpg_dsn

    async def dial() -> asyncpg.Connection:
        # asyncpg reads the whole address, several hosts and libpq's options included.
        return await asyncpg.connect(
            dsn,
            timeout=_CONNECT_SECONDS,
            command_timeout=_STATEMENT_SECONDS,
            server_settings={"application_name": settings.service_name},
        )

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=dial,
        pool_size=settings.database_connections,
        max_overflow=0,
    )
