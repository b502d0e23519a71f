"""The way of a message: when it was written, how far each of its deliveries is, and what followed from it.

What follows from a message carries its correlation id. No index has that; but it is written later, so a walk
over a bounded number of rows, from the message's own on, finds it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Something that happened to a message, or to one of its deliveries."""

    at: datetime | None
    """None is now."""
    what: str
    id: int | None = None
    """Of the delivery; None: of all."""
    to: str | None = None
    """Where the delivery goes."""
    detail: str | None = None


def timeline(trace: Trace) -> list[Moment]:
    """Returns what is known to have happened to a message, in the order of time."""
    first = trace.deliveries[0]
    moments = [
        Moment(
            at=trace.written_at,
            what="written",
            detail=f"{trace.type}, key {first.key}" if first.key else trace.type,
        )
    ]
    if trace.committed_at:
        moments.append(Moment(at=trace.committed_at, what="committed"))
    for delivery in trace.deliveries:
        moments += _moments(delivery, trace.written_at)
    return sorted(moments, key=lambda moment: (moment.at is None, moment.at or trace.written_at))


def _moments(delivery: DeliveryState, written_at: datetime) -> Iterator[Moment]:
    def moment(at: datetime | None, what: str, detail: str | None = None) -> Moment:
        to = f"{delivery.sink}: {delivery.destination}"
        return Moment(at=at, what=what, id=delivery.id, to=to, detail=detail)

    failed = (
        f"after {delivery.attempts} failed attempts" if delivery.attempts != 1 else "after a failed attempt"
    )
    if delivery.replay_id:
        yield moment(delivery.created_at, "replayed", f"written again by replay {delivery.replay_id}")
    if delivery.first_due_at > max(delivery.created_at, written_at):
        yield moment(delivery.first_due_at, "due")
    if delivery.parked_at:
        yield moment(delivery.parked_at, "parked", f"{failed}: {delivery.last_error}")
    if delivery.state == "retrying":
        yield moment(delivery.due_at, "next try", f"{failed}: {delivery.last_error}")
    if delivery.settled_at:
        yield moment(delivery.settled_at, delivery.state, _where(delivery, failed))
    elif not delivery.parked_at:
        yield moment(None, delivery.state, "stuck" if delivery.stuck else None)


def _where(delivery: DeliveryState, failed: str) -> str | None:
    known = {
        "partition {}": delivery.partition,
        "offset {}": delivery.partition_offset,
        "{} receivers": delivery.receivers,
        failed: delivery.attempts or None,
    }
    return ", ".join(text.format(value) for text, value in known.items() if value is not None) or None


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
