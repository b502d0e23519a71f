"""Deliveries, how far they are, and which of them one means. All over the view `outbox_state`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    SmallInteger,
    Table,
    Text,
    Uuid,
    and_,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.schema import table

PENDING = ("scheduled", "ready", "held", "retrying", "parked")
"""The states of what is in the queue."""

DONE = ("delivered", "expired", "skipped")
"""The states of what has a receipt."""

_TIME = DateTime(timezone=True)
STATE = Table(
    "outbox_state",
    MetaData(),
    Column("id", BigInteger),
    Column("message_id", Uuid),
    Column("type", Text),
    Column("sink", Text),
    Column("destination", Text),
    Column("key", Text),
    Column("lane", SmallInteger),
    Column("state", Text),
    Column("stuck", Boolean),
    Column("attempts", SmallInteger),
    Column("last_error", Text),
    Column("created_at", _TIME),
    Column("first_due_at", _TIME),
    Column("due_at", _TIME),
    Column("expires_at", _TIME),
    Column("parked_at", _TIME),
    Column("blocks", Boolean),
    Column("uncertain", Boolean),
    Column("settled_at", _TIME),
    Column("partition", Integer),
    Column("partition_offset", BigInteger),
    Column("receivers", Integer),
    Column("replay_id", Uuid),
    Column("correlation_id", Text),
    Column("pending", Boolean),
    Column("fingerprint", BigInteger),
)
"""The view, as far as it is asked for."""


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """One row of `outbox_state`: a delivery and how far it is."""

    id: int
    message_id: UUID
    type: str
    sink: str
    destination: str
    key: str | None
    lane: int
    state: str
    stuck: bool
    attempts: int
    last_error: str | None
    created_at: datetime
    first_due_at: datetime
    due_at: datetime | None
    expires_at: datetime | None
    parked_at: datetime | None
    blocks: bool
    uncertain: bool
    settled_at: datetime | None
    partition: int | None
    partition_offset: int | None
    receivers: int | None
    replay_id: UUID | None
    correlation_id: str | None


def _shown(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Returns what is asked of a column: a time that Python has not is the nearest that it has."""
    if not isinstance(column.type, DateTime):
        return column
    first, last = (cast(literal(time), _TIME) for time in ("0001-01-02 00:00Z", "9999-12-30 00:00Z"))
    # Neither takes null for the least or the greatest.
    return case((column.is_not(None), func.greatest(first, func.least(last, column))))


DELIVERY_COLUMNS = [_shown(STATE.c[each.name]).label(each.name) for each in fields(DeliveryState)]
"""What makes a `DeliveryState`, in the order of its fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which deliveries: all that match every condition given."""

    ids: Collection[int] = ()
    message_ids: Collection[UUID] = ()
    """With `ids`: either."""
    sink: str | None = None
    destination: str | None = None
    key: str | None = None
    type: str | None = None
    error: str | None = None
    """Part of the last error, in upper or lower case."""
    group: int | None = None
    """Of the parked ones, those of this cause (see `groups`)."""
    older_than: timedelta | None = None
    """Written longer ago."""
    newer_than: timedelta | None = None
    """Written since."""
    states: Collection[str] = ()
    stuck: bool = False

    @property
    def named(self) -> bool:
        """True if it names deliveries one by one."""
        return bool(self.ids or self.message_ids)

    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions as SQL over `STATE`."""
        found: list[ColumnElement[bool]] = []
        if self.named:
            found.append(or_(STATE.c.id.in_(self.ids), STATE.c.message_id.in_(self.message_ids)))
        exact = {"sink": self.sink, "destination": self.destination, "key": self.key, "type": self.type}
        found.extend(STATE.c[name] == value for name, value in exact.items() if value is not None)
        if self.error is not None:
            found.append(STATE.c.last_error.icontains(self.error, autoescape=True))
        if self.group is not None:
            found.append(and_(STATE.c.parked_at.is_not(None), STATE.c.fingerprint == self.group))
        now = func.now(type_=_TIME)
        if self.older_than is not None:
            found.append(STATE.c.created_at < now - self.older_than)
        if self.newer_than is not None:
            found.append(STATE.c.created_at >= now - self.newer_than)
        if self.states:
            found.append(or_(*map(_in_state, self.states)))
        if self.stuck:
            found.append(STATE.c.stuck)
        return found


def _in_state(state: str) -> ColumnElement[bool]:
    # What is true then besides, so that small partial indexes serve instead of a walk over the queue.
    implied = {
        "parked": STATE.c.parked_at.is_not(None),
        "retrying": STATE.c.due_at.is_not(None),
        "scheduled": STATE.c.due_at.is_not(None),
    }
    return and_(STATE.c.state == state, implied.get(state, true()))


def pending(selection: Selection, *columns: Any) -> Select[Any]:
    """Makes a statement over what is in the queue and matches."""
    return select(*columns).where(STATE.c.pending, *selection.conditions())


async def count(connection: AsyncConnection, selection: Selection) -> int:
    """Returns how many pending deliveries match."""
    return await connection.scalar(pending(selection, func.count())) or 0


@dataclass(frozen=True, slots=True)
class Details:
    """All there is to know of one delivery."""

    delivery: DeliveryState
    held_by: int | None
    """The id its key waits for."""
    owner: str | None
    """The relay that owns its lane, by name."""
    headers: Mapping[str, str]
    payload: bytes | None
    """None is a tombstone; also None where it was not asked for."""


async def show(connection: AsyncConnection, selection: Selection, *, payload: bool = False) -> list[Details]:
    """Returns every delivery that matches, pending or done, oldest first."""
    outbox, lanes, relays = table("outbox"), table("outbox_lanes"), table("outbox_relays")
    own, head = table("outbox_queue").alias("own"), table("outbox_queue").alias("head")
    held_by = (
        select(func.min(head.c.id))
        .where(
            *(own.c[name] == STATE.c[name] for name in ("sink", "lane", "id")),
            STATE.c.state == "held",
            head.c.sink == STATE.c.sink,
            head.c.lane == STATE.c.lane,
            head.c.key_hash == own.c.key_hash,
            head.c.id < STATE.c.id,
            head.c.blocks,
        )
        .scalar_subquery()
    )
    owner = (
        select(relays.c.name)
        .join(lanes, lanes.c.owner == relays.c.relay_id)
        .where(lanes.c.sink == STATE.c.sink, lanes.c.lane == STATE.c.lane)
        .where(lanes.c.expires_at > func.clock_timestamp())
        .scalar_subquery()
    )
    body = outbox.c.payload if payload else type_coerce(null(), LargeBinary)
    statement = (
        select(*DELIVERY_COLUMNS, held_by, owner, outbox.c.headers, body)
        .join(outbox, outbox.c.id == STATE.c.id)
        .where(*selection.conditions())
        .order_by(STATE.c.id)
    )
    rows = [tuple(row) for row in await connection.execute(statement)]
    return [Details(DeliveryState(*row[:-4]), *row[-4:]) for row in rows]
