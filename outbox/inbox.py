"""The consumer's side: act once on a message that may come more than once.

    async with session.begin():
        async with once(session, "grades", message_id) as first:
            if first:
                session.add(Grade(…))

Commit the broker's offset after the transaction. A replay carries the `message_id` of the first time; a
consumer that wants to act on it again puts the header `replay_id` into its name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from outbox.settings import Settings, loaded


@asynccontextmanager
async def once(
    session: AsyncSession | AsyncConnection,
    consumer: str,
    message_id: UUID,
    *,
    settings: Settings | None = None,
) -> AsyncIterator[bool]:
    """Records in the caller's transaction that `consumer` acts on a message; gives True the first time.

    Where another transaction is just acting on it, this waits for its end. What an error in the block did is
    undone, the record too, whatever the caller does with the error: the block is a savepoint.
    """
    async with session.begin_nested():
        recorded = await _execute(
            session,
            f"INSERT INTO {_table(settings)} (consumer, message_id)"
            " VALUES (:consumer, CAST(:message_id AS uuid)) ON CONFLICT DO NOTHING",
            consumer=consumer,
            message_id=str(message_id),
        )
        yield recorded == 1


async def unseen(
    session: AsyncSession | AsyncConnection,
    consumer: str,
    message_ids: Collection[UUID],
    *,
    settings: Settings | None = None,
) -> set[UUID]:
    """Does for many messages, in one statement, what `once` does for one; returns those that come first now.

    There is no savepoint: what fails after it must undo the caller's transaction. They are recorded in sorted
    order, so that two transactions with the same messages never wait for each other.
    """
    statement = text(
        f"INSERT INTO {_table(settings)} (consumer, message_id)"
        " SELECT :consumer, message_id FROM unnest(CAST(:message_ids AS uuid[])) AS message_id"
        " ORDER BY message_id ON CONFLICT DO NOTHING RETURNING message_id"
    )
    recorded = await session.execute(statement, {"consumer": consumer, "message_ids": list(message_ids)})
    return set(recorded.scalars())


async def prune_inbox(
    session: AsyncSession | AsyncConnection,
    consumer: str,
    older_than: timedelta,
    *,
    limit: int = 10_000,
    settings: Settings | None = None,
) -> int:
    """Forgets what `consumer` received longer ago than that, at most `limit` records; returns how many.

    A message that comes again after that is taken for a new one, so keep records for longer than the broker
    keeps messages and a relay may be down.
    """
    table = _table(settings)
    return await _execute(
        session,
        f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("
        f"SELECT ctid FROM {table}"
        " WHERE consumer = :consumer AND received_at < statement_timestamp() - CAST(:age AS interval)"
        " ORDER BY received_at LIMIT :most))",
        consumer=consumer,
        age=older_than,
        most=limit,
    )


def _table(settings: Settings | None) -> str:
    schema = (settings or loaded()).database_schema
    return f'"{schema}".outbox_inbox' if schema else "outbox_inbox"


async def _execute(session: AsyncSession | AsyncConnection, statement: str, **values: object) -> int:
    # Only Session's own execute is typed to return less than the cursor.
    result = await session.execute(text(statement).execution_options(preserve_rowcount=True), values)
    return cast("CursorResult[Any]", result).rowcount
