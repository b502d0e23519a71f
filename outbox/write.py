"""Writing messages in the caller's transaction: the business change and what it says commit together.

    async with session.begin():
        session.add(assignment)
        await write(session, Message(type="slot.assigned", sink="kafka", destination="slots", payload={…}))

Never commits, and talks to nothing but the caller's own connection. A writer needs INSERT on `outbox` and no
more. In plain SQL, from any language, the same row is

    INSERT INTO outbox (message_id, type, sink, destination, key, payload)
    VALUES (gen_random_uuid(), 'slot.assigned', 'kafka', 'slots', 'batch-1', convert_to('{"n": 1}', 'UTF8'))

(and COPY of the same columns), but only `write` checks it against the settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from outbox.encode import Encoder, Row
from outbox.errors import ConflictError, OutboxError, SchemaError
from outbox.message import Message
from outbox.settings import Settings, loaded


async def write(
    session: AsyncSession | AsyncConnection | async_scoped_session[Any],
    *messages: Message,
    strict_order: bool = False,
    settings: Settings | None = None,
) -> int:
    """Writes messages in the session's transaction, in one statement; returns how many were new.

    A message whose `message_id` was already written to that sink and destination is not written again; if it
    then said something else (type, key or payload), this raises `ConflictError`. A message that cannot be
    written raises `MessageError` before anything is sent to the database.

    Ids, and so the order of a key, are given now and not at commit. Writers of one key that do not take turns
    by a lock of their own pass `strict_order=True`: until the transaction ends, other strict writers of the
    same keys wait. Write the messages of a transaction in one call then: writers that take keys in
    different order can deadlock, which PostgreSQL ends by failing one of them.

    Without `settings` the environment's count, as they were when first read in this process. A connection in
    autocommit is refused.
    """
    if isinstance(session, async_scoped_session):
        session = session()
    if not isinstance(session, AsyncSession | AsyncConnection):
        raise _wrong(session, "write", "an AsyncSession or AsyncConnection", "write_sync")
    return await session.run_sync(_write, messages, strict_order, settings)


def write_sync(
    session: Session | Connection | scoped_session[Any],
    *messages: Message,
    strict_order: bool = False,
    settings: Settings | None = None,
) -> int:
    """Writes messages as `write` does, for code that is not async."""
    if not isinstance(session, Session | Connection | scoped_session):
        raise _wrong(session, "write_sync", "a Session or Connection", "write")
    return _write(session, messages, strict_order, settings)


def _write(
    session: Session | Connection | scoped_session[Any],
    messages: Sequence[Message],
    strict_order: bool,
    settings: Settings | None,
) -> int:
    encoder = _process_encoder() if settings is None else Encoder(settings)
    rows = encoder.rows(messages)
    if not rows:
        return 0
    connection = session if isinstance(session, Connection) else session.connection()
    _refuse_autocommit(connection)
    statements = _statements(encoder.schema)
    columns = dict(zip(Row._fields, map(list, zip(*rows, strict=True)), strict=True))
    if strict_order:
        connection.execute(statements.lock, {name: columns[name] for name in ("sink", "destination", "key")})
    new = connection.execute(statements.insert, columns).rowcount
    if new < len(rows):
        _compare(connection, statements, columns)
    return new


class _Statements:
    """The SQL, with the tables' schema filled in; each takes arrays, one element per message."""

    def __init__(self, schema: str | None) -> None:
        prefix = f'"{schema}".' if schema else ""
        # To name what conflicts, or to return anything, would need SELECT.
        self.insert = text(f"""
            INSERT INTO {prefix}outbox (
                message_id, type, sink, destination, key, payload, headers, available_at, expires_at
            )
            SELECT message_id, type, sink, destination, key, payload, headers::jsonb, available_at, expires_at
            FROM unnest(
                CAST(:message_id AS uuid[]), CAST(:type AS text[]), CAST(:sink AS text[]),
                CAST(:destination AS text[]), CAST(:key AS text[]), CAST(:payload AS bytea[]),
                CAST(:headers AS text[]), CAST(:available_at AS timestamptz[]),
                CAST(:expires_at AS timestamptz[])
            ) WITH ORDINALITY AS given (
                message_id, type, sink, destination, key, payload, headers, available_at, expires_at, position
            )
            ORDER BY position
            ON CONFLICT DO NOTHING
        """).execution_options(preserve_rowcount=True)
        self.differing = text(f"""
            SELECT message_id, sink, destination, alike
            FROM unnest(
                CAST(:message_id AS uuid[]), CAST(:sink AS text[]), CAST(:destination AS text[]),
                CAST(:type AS text[]), CAST(:key AS text[]), CAST(:payload AS bytea[])
            ) AS given (message_id, sink, destination, type, key, payload)
            CROSS JOIN LATERAL {prefix}outbox_written_alike(
                message_id, sink, destination, type, key, payload
            ) AS alike
            WHERE alike IS NOT true
            LIMIT 1
        """)
        # Sorted, so that two writers of the same keys cannot wait for each other.
        self.lock = text("""
            SELECT pg_advisory_xact_lock(key_lock)
            FROM (
                SELECT DISTINCT hashtextextended(
                    key, hashtextextended(destination, hashtextextended(sink, 0))
                ) AS key_lock
                FROM unnest(CAST(:sink AS text[]), CAST(:destination AS text[]), CAST(:key AS text[]))
                    AS given (sink, destination, key)
                WHERE key IS NOT NULL
                ORDER BY key_lock
            ) AS sorted
        """)


_statements = cache(_Statements)


@cache
def _process_encoder() -> Encoder:
    return Encoder(loaded())


def _compare(connection: Connection, statements: _Statements, columns: Mapping[str, list[object]]) -> None:
    """Raises `ConflictError` if what was not new says something else than what is there."""
    names = ("message_id", "sink", "destination", "type", "key", "payload")
    found = connection.execute(statements.differing, {name: columns[name] for name in names}).first()
    if found is None:
        return
    where = f"message_id {found.message_id}, {found.sink} {found.destination!r}"
    if found.alike is None:
        raise SchemaError(
            f"{where}: not written, though nothing is there under this id; either it was pruned at this "
            "moment, or outbox_id_seq is behind the ids in the table, as after an incomplete restore"
        )
    raise ConflictError(
        f"{where}: already written with another type, key or payload; roll back, and give what is a new "
        "message a new id"
    )


def _refuse_autocommit(connection: Connection) -> None:
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise OutboxError(
            "a message needs the transaction of what it tells of, and this connection is in autocommit; use "
            "one without isolation_level='AUTOCOMMIT'"
        )


def _wrong(session: object, function: str, needed: str, other: str) -> OutboxError:
    return OutboxError(
        f"{function} takes {needed}, and got a {type(session).__name__}; perhaps you want {other}"
    )
