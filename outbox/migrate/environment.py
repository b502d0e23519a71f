"""What each `env.py` runs: one run at a time, and each migration in a transaction of its own.

A migration waits for its locks only briefly, since every writer queues up behind it meanwhile, and is tried
again after a pause. What is committed stays, so a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
from alembic import context
from sqlalchemy import event, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.errors import OperatorError
from outbox.migrate import Migrations
from outbox.migrate.waiting import Onlooker, Wait, take_turn
from outbox.policy import Backoff
from outbox.schema import catalog
from outbox.settings import Settings, load

Connect = Callable[[Settings], AbstractAsyncContextManager[AsyncConnection]]

TRIES = 20
"""How often a migration is tried before the run gives up: eight minutes in all."""

LOCK = Backoff(0.25, 2.0)
"""How long each try waits for a lock. In the end longer than deadlock_timeout, after which PostgreSQL cancels
an autovacuum that is in the way."""

PAUSE = Backoff(1.0, 30.0)
"""The pause after each try, in which writers go on."""

# A lock that was not to be had in time; a deadlock, of which this was the victim.
_TRY_AGAIN = ("55P03", "40P01")

# What roles and databases may have set for their services is not meant for migrations. Not every version
# has all of these.
_BEGIN = text("""
    SELECT set_config(name, value, true)
    FROM (VALUES ('lock_timeout', :lock_timeout), ('search_path', :search_path), ('statement_timeout', '0'),
                 ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0')
    ) AS wanted (name, value)
    JOIN pg_settings USING (name) WHERE value <> ''
""")

# What whoever runs the printed statements may have set.
_PUT_ASIDE = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
}

_log = logging.getLogger("outbox.migrate")


def run(migrations: Migrations, connect: Connect) -> None:
    """Does what the Alembic command asks, in the database of the settings or, offline, on paper."""
    settings = context.config.attributes.get("settings") or load()
    schema = settings.database_schema if migrations.in_schema else None
    if context.is_offline_mode():
        _print(migrations, schema)
    else:
        asyncio.run(_Run(migrations, schema).online(settings, connect))


def _print(migrations: Migrations, schema: str | None) -> None:
    _configure(migrations, schema, None)
    tell = context.get_context().impl.static_output
    tell("-- In psql: --set=ON_ERROR_STOP=1. Nothing after a statement that failed may run.\n")
    context.execute(f"SET lock_timeout = '{LOCK.longest:g}s'")
    for setting, value in _PUT_ASIDE.items():
        context.execute(f"SET {setting} = {value}")
    if schema:
        context.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        context.execute(f'SET search_path = "{schema}"')
    context.run_migrations()
    for setting in ("lock_timeout", *_PUT_ASIDE, "search_path"):
        context.execute(f"RESET {setting}")


class _Run:
    """One run against a database."""

    def __init__(self, migrations: Migrations, schema: str | None) -> None:
        self._migrations = migrations
        self._schema = schema
        self._failures = 0
        """Of the migration that is next."""

    async def online(self, settings: Settings, connect: Connect) -> None:
        if settings.database_pooler == "transaction":
            raise OperatorError(
                "Migrations need a session of their own, which a pooler in transaction mode does not give: "
                "run this with Postgres' own address in OUTBOX_DATABASE_URL and OUTBOX_DATABASE_POOLER=none"
            )
        # Without the schema, which would be put before every name: the search path has it.
        everywhere = settings.model_copy(update={"database_schema": None})
        async with connect(everywhere) as connection, connect(everywhere) as looking:
            session, own = await _session_of(connection), await _session_of(looking)
            # The session that works has the turn, so that what a killed process left running keeps it.
            await take_turn(session, self._schema, self._migrations.version_table)
            # Not what the client was told when it connected: a pooler in session mode makes that up.
            pid = await session.fetchval("SELECT pg_backend_pid()")
            async with Onlooker.of(pid, own) as onlooker:
                event.listen(connection.sync_connection, "begin", self._begin)
                if self._schema:
                    await connection.run_sync(_make_schema, self._schema)
                await self._migrate(connection, onlooker)
            for line in await catalog.unvalidated(own, self._schema, self._migrations.tables):
                _log.warning(line)

    async def _migrate(self, connection: AsyncConnection, onlooker: Onlooker) -> None:
        while True:
            onlooker.last = None
            try:
                await connection.run_sync(self._steps)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _TRY_AGAIN:
                    raise
                await connection.rollback()
                await self._pause(onlooker.last or Wait(error.statement or "", 0.0, "somebody"))
            except PendingRollbackError as error:
                # Of a connection that was lost: what Alembic then tidies up hides it.
                raise (error.__context__ or error) from None
            else:
                return

    async def _pause(self, wait: Wait) -> None:
        lock = LOCK.ceiling(self._failures + 1)
        self._failures += 1
        if self._failures == TRIES:
            raise OperatorError(
                f"{wait}; no lock in {TRIES} tries. Wait for that session or end it, and run this again: it "
                "goes on where it stopped"
            )
        pause = PAUSE.ceiling(self._failures)
        _log.warning("%s; no lock within %g s, trying again in %g s", wait, lock, pause)
        await asyncio.sleep(pause)

    def _steps(self, connection: Connection) -> None:
        connection.dialect.default_schema_name = self._schema or connection.dialect.default_schema_name
        _configure(self._migrations, self._schema, connection, on_version_apply=self._applied)
        context.run_migrations()

    def _applied(self, **_: object) -> None:
        self._failures = 0

    def _begin(self, connection: Connection) -> None:
        lock_timeout = f"{LOCK.ceiling(self._failures + 1)}s"
        path = f'"{self._schema}"' if self._schema else ""
        connection.execute(_BEGIN, {"lock_timeout": lock_timeout, "search_path": path})


async def _session_of(connection: AsyncConnection) -> asyncpg.Connection:
    """Returns the session below SQLAlchemy: what it is asked before the first transaction is in none."""
    return (await connection.get_raw_connection()).driver_connection


def _make_schema(connection: Connection, schema: str) -> None:
    with connection.begin():
        # IF NOT EXISTS would need the right to create it even where somebody did.
        if not connection.dialect.has_schema(connection, schema):
            connection.execute(text(f'CREATE SCHEMA "{schema}"'))


def _configure(
    migrations: Migrations, schema: str | None, connection: Connection | None, **options: Any
) -> None:
    context.configure(
        connection=connection,
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # else percent signs are doubled in printed statements
        target_metadata=migrations.metadata,
        version_table=migrations.version_table,
        version_table_schema=schema,
        include_name=_only(migrations.tables),
        compare_server_default=True,
        literal_binds=connection is None,
        transactional_ddl=True,
        transaction_per_migration=True,
        **options,
    )


def _only(tables: Collection[str]) -> Callable[[str | None, str, Mapping[Any, str | None]], bool]:
    """Returns the filter that lets Alembic see these tables and nothing else."""

    def ours(name: str | None, kind: str, _parents: Mapping[Any, str | None]) -> bool:
        return name in tables if kind == "table" else kind != "schema" or name is None

    return ours
