"""A connection for everything but the pumps, and what its errors mean in one line with a remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from outbox.database import Session, engine_of
from outbox.errors import HIDDEN_ROWS, SEE_ALL_ROWS, OperatorError, SchemaError, unwrapped
from outbox.settings import Settings, masked

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
    schema = settings.database_schema
    engine = engine_of(
        settings,
        Session("outbox", settings.database_pooler == "transaction", own=True, settings={"jit": "off"}),
        poolclass=NullPool,
        execution_options={"schema_translate_map": {None: schema}} if schema else {},
    )
    with explained(settings):
        async with engine.connect() as connection:
            yield connection


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
