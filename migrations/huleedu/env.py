"""Alembic's environment for the tables of HuleEdu's services: `alembic -n huleedu upgrade head`.

They go to the connection's own schema of the database in OUTBOX_DATABASE_URL, with a version table of their
own. `outbox migrate` never makes them. A run is one transaction, and waits for another that is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from alembic import context
from sqlalchemy import text
from sqlalchemy.engine import Connection

from outbox.huleedu.schema import TABLES, VERSION_TABLE, metadata
from outbox.operate import connect
from outbox.settings import Settings, load

settings: Settings = context.config.attributes.get("settings") or load()


def ours(name: str | None, kind: str, _parents: Mapping[Any, str | None]) -> bool:
    """Look at nothing in the database but these tables."""
    if kind == "table":
        return name in TABLES
    return kind != "schema" or name is None


def configure(connection: Connection | None) -> None:
    context.configure(
        connection=connection,
        dialect_name="postgresql",
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=ours,
        compare_server_default=True,
        literal_binds=connection is None,
        transactional_ddl=True,
    )


def online(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('huleedu migrate', 0))"))
    configure(connection)
    context.run_migrations()


async def connected() -> None:
    # The schema of the settings is that of the outbox's own tables.
    everywhere = settings.model_copy(update={"database_schema": None})
    async with connect(everywhere) as connection, connection.begin():
        await connection.run_sync(online)


if context.is_offline_mode():
    configure(None)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(connected())
