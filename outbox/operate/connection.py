"""A connection for everything but the pumps, and what its errors mean in one line with a remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import uuid4

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from outbox.errors import HIDDEN_ROWS, SEE_ALL_ROWS, OperatorError, SchemaError, unwrapped
from outbox.settings import Settings, masked

_CONNECT_SECONDS = 10.0

# By SQLSTATE, or by its class.
_REMEDIES = {
    "28": "check the user and password in OUTBOX_DATABASE_URL",
    "3D": "create it, or check the name in OUTBOX_DATABASE_URL",
    "42501": "grant it to this user, or use another one",
    "57P03": "wait until it has started",
    "53300": "raise max_connections, or close some",
    "57014": "it took longer than statement_timeout allows",
}


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """Opens one connection to the outbox's tables; what the block does not commit is rolled back.

    Tables without a schema are those of `database_schema`. Raises `OperatorError` when the database
    cannot be reached or refuses, `SchemaError` when it is not migrated.
    """
    pooled = settings.database_pooler == "transaction"
    dsn, schema = settings.asyncpg_dsn, settings.database_schema

    async def dial() -> asyncpg.Connection:
        # asyncpg reads the whole address, several hosts and libpq's options included.
        return await asyncpg.connect(
            dsn,
            timeout=_CONNECT_SECONDS,
            statement_cache_size=0 if pooled else 100,
            # A pooler refuses parameters it does not know.
            server_settings={}
            if pooled
            else {"application_name": "outbox", "jit": "off", "row_security": "off"},
        )

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=dial,
        poolclass=NullPool,
        execution_options={"schema_translate_map": {None: schema}} if schema else {},
        connect_args={"prepared_statement_name_func": lambda: f"outbox_{uuid4().hex}"} if pooled else {},
    )
    if pooled:
        event.listen(engine.sync_engine, "begin", _show_hidden_rows)
    with explained(settings):
        async with engine.connect() as connection:
            yield connection


def _show_hidden_rows(connection: Connection) -> None:
    # Rows that a policy hides are an error then, not a table that looks empty.
    connection.exec_driver_sql("SET LOCAL row_security = off")


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Turns a database's error within the block into one line that says what to do."""
    where = masked(settings.asyncpg_dsn).partition("://")[2].partition("?")[0]
    try:
        yield
    except (asyncpg.PostgresError, DBAPIError) as error:
        raise _translated(error, where) from error
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        reason = str(error) or type(error).__name__
        raise OperatorError(
            f"Cannot reach the database at {where}: {reason}. Does it run, and is OUTBOX_DATABASE_URL right?"
        ) from error


def _translated(error: asyncpg.PostgresError | DBAPIError, where: str) -> OperatorError | SchemaError:
    cause = unwrapped(error)
    code = getattr(cause, "sqlstate", None) or ""
    said = str(cause).splitlines()[0]
    if code in ("42P01", "3F000", "42703"):
        return SchemaError(f"The database at {where} is not migrated ({said}). Run: outbox migrate")
    remedy = SEE_ALL_ROWS if HIDDEN_ROWS in said else _REMEDIES.get(code) or _REMEDIES.get(code[:2])
    advice = f"; {remedy}" if remedy else ""
    return OperatorError(f"The database at {where} refuses: {said}{advice}")
