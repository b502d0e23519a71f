"""Alembic's environment for the outbox's own tables.

The version table is ours (`outbox_alembic_version`), and only our tables are looked at, so these
migrations live beside a service's own in one database. With OUTBOX_DATABASE_SCHEMA everything,
the version table too, goes into that schema. A run is one transaction, and waits for another
that is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from alembic import context
from sqlalchemy import text
from sqlalchemy.engine import Connection

from outbox.operate import connect
from outbox.schema import TABLES, VERSION_TABLE, metadata
from outbox.settings import Settings, load

settings: Settings = context.config.attributes.get("settings") or load()
schema = settings.database_schema


def ours(name: str | None, kind: str, _parents: Mapping[Any, str | None]) -> bool:
    """Look at nothing in the database but the outbox's tables."""
    if kind == "table":
        return name in TABLES
    return kind != "schema" or name is None


def configure(connection: Connection | None) -> None:
    context.configure(
        connection=connection,
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # else percent signs are doubled in printed statements
        target_metadata=metadata(),
        version_table=VERSION_TABLE,
        include_name=ours,
        compare_server_default=True,
        literal_binds=connection is None,
        transactional_ddl=True,
    )


def offline() -> None:
    configure(None)
    with context.begin_transaction():
        if schema:
            context.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            context.execute(f'SET LOCAL search_path = "{schema}"')
        context.run_migrations()


def online(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('outbox migrate', 0))"))
    if schema:
        # IF NOT EXISTS would need the right to create it even where somebody did.
        if not connection.dialect.has_schema(connection, schema):
            connection.execute(text(f'CREATE SCHEMA "{schema}"'))
        connection.execute(text(f'SET LOCAL search_path = "{schema}"'))
        connection.dialect.default_schema_name = schema
    configure(connection)
    context.run_migrations()


async def connected() -> None:
    # Without the schema, which would be put before every name: the search path has it.
    everywhere = settings.model_copy(update={"database_schema": None})
    async with connect(everywhere) as connection, connection.begin():
        await connection.run_sync(online)


if context.is_offline_mode():
    offline()
else:
    asyncio.run(connected())
