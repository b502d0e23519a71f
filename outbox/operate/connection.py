"""A connection for everything but the pumps, and what its errors mean in one line with a remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from pydantic_core import from_json
from sqlalchemy import event
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
    event.listen(engine.sync_engine, "connect", _bear_any_bytes)
    with explained(settings):
        async with engine.connect() as connection:
            yield connection


def _bear_any_bytes(adapted: Any, _record: object) -> None:
    """A database in SQL_ASCII holds what is no UTF-8; it is shown then, byte by byte."""
    if adapted.driver_connection.get_settings().server_encoding == "SQL_ASCII":
        adapted.run_async(_decode_any_bytes)


async def _decode_any_bytes(connection: asyncpg.Connection) -> None:
    # As it is there, or PostgreSQL itself refuses to send it.
    await connection.execute("SET client_encoding = 'SQL_ASCII'")
    for name, decode in (("text", _decode), ("varchar", _decode), ("jsonb", _decode_json)):
        await connection.set_type_codec(
            name, schema="pg_catalog", format="binary", encoder=str.encode, decoder=decode
        )


def _decode(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def _decode_json(data: bytes) -> Any:
    # Behind a byte for the version. A backslash would mean something else here.
    return from_json(data[1:].decode(errors="replace"))


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
