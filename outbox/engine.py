"""An engine for who writes, or consumes, with SQLAlchemy."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.settings import Settings, loaded


def create_engine(
    settings: Settings | None = None,
    *,
    application_name: str | None = None,
    command_timeout: float | None = None,
    **options: Any,
) -> AsyncEngine:
    """Makes SQLAlchemy's engine for the database in the settings, whatever its address has in it.

    `command_timeout` is in seconds, and `options` are those of SQLAlchemy's `create_async_engine`. Without
    `settings` the environment's count. A sync engine, which reads the same address by libpq:

        create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(settings.asyncpg_dsn))
    """
    # A writer that has an engine of its own needs no asyncpg.
    from outbox.database import Session, engine_of  # noqa: PLC0415

    chosen = settings or loaded()
    pooled = chosen.database_pooler == "transaction"
    return engine_of(chosen, Session(application_name, pooled, command_timeout), **options)
