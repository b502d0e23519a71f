"""The way of a message: when it was written, how far each of its deliveries is, and what followed from it.

What follows from a message carries its correlation id. No index has that; but it is written later, so a walk
over a bounded number of rows, from the message's own on, finds it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, literal_column, null, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.state import DELIVERY_COLUMNS, STATE, DeliveryState
from outbox.schema import table

_WITHIN_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Trace:
    """A message and how far it is."""

    message_id: UUID
    type: str
    correlation_id: str | None
    written_at: datetime
    committed_at: datetime | None
    """When its transaction did; None where the database does not keep that (`track_commit_timestamp`)."""
    deliveries: tuple[DeliveryState, ...]
    """One to each destination, and those of replays; in the order in which they were written."""


_written = table("outbox").alias("written")

_COMMITTED_AT = case(
    (
        func.current_setting("track_commit_timestamp") == "on",
        func.pg_xact_commit_timestamp(literal_column("written.xmin")),
    ),
    else_=null(),
)


async def trace(connection: AsyncConnection, message_id: UUID) -> Trace | None:
    """Returns the message with all of its deliveries; None if it was never written, or is pruned."""
    found = await _traces(connection, [message_id])
    return found[0] if found else None


async def follow(
    connection: AsyncConnection, message_id: UUID, *, within_rows: int = _WITHIN_ROWS
) -> list[Trace]:
    """Returns the message and what was written after it under its correlation id, in the order of writing.

    Looks through as many rows after the message's own as `within_rows` says. What is pruned is not told.
    """
    own = (
        select(STATE.c.id, STATE.c.correlation_id)
        .where(STATE.c.message_id == message_id)
        .order_by(STATE.c.id)
        .limit(1)
        .cte("own")
    )
    # By the view, which shows of headers no more than this one: a reader may not see the others.
    followers = select(STATE.c.message_id).where(
        STATE.c.id.between(own.c.id, own.c.id + within_rows),
        or_(STATE.c.id == own.c.id, own.c.correlation_id == STATE.c.correlation_id),
    )
    return await _traces(connection, set(await connection.scalars(followers)))


async def _traces(connection: AsyncConnection, message_ids: Collection[UUID]) -> list[Trace]:
    statement = (
        select(*DELIVERY_COLUMNS, _COMMITTED_AT)
        .join(_written, _written.c.id == STATE.c.id)
        .where(STATE.c.message_id.in_(message_ids))
        .order_by(STATE.c.id)
    )
    by_message: dict[UUID, list[tuple[Any, ...]]] = {}
    for row in await connection.execute(statement):
        by_message.setdefault(row.message_id, []).append(tuple(row))
    return [_trace(rows) for rows in by_message.values()]


def _trace(rows: Sequence[tuple[Any, ...]]) -> Trace:
    deliveries = tuple(DeliveryState(*row[:-1]) for row in rows)
    first = deliveries[0]
    return Trace(
        message_id=first.message_id,
        type=first.type,
        correlation_id=first.correlation_id,
        written_at=first.created_at,
        committed_at=rows[0][-1],
        deliveries=deliveries,
    )
