"""How much is waiting, how long, and who is there to send it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Double,
    Table,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.state import PENDING
from outbox.schema import table

_STUCK_AFTER = timedelta(minutes=5)
"""Where no relay has written the sink's own, as in the view."""


@dataclass(frozen=True, slots=True)
class Depth:
    """What is in one state in one lane's queue."""

    sink: str
    lane: int
    state: str
    rows: int
    stuck: int
    oldest_seconds: float
    """How long ago the first due of them was due; negative if it is not yet."""
    reachable: int
    """How many of the rows go to none of the destinations that were left out."""


async def depths(connection: AsyncConnection, without: Iterable[tuple[str, str]] = ()) -> list[Depth]:
    """What is in the queue, by sink, lane and state; `without` are (sink, destination) that are down.

    The states are those of the view, with the holds found by one hash join instead of a look-up per
    row: on 1,000,000 rows 0.3 instead of 2 s.
    """
    queue, sinks = table("outbox_queue"), table("outbox_sinks")
    of_key = (queue.c.sink, queue.c.lane, queue.c.key_hash)
    head = (
        select(*of_key, func.min(queue.c.id).label("id")).where(queue.c.blocks).group_by(*of_key).cte("head")
    )
    state = case(
        (queue.c.parked_at.is_not(None), "parked"),
        (and_(queue.c.due_at.is_not(None), queue.c.last_error.is_not(None)), "retrying"),
        (queue.c.due_at > _now(), "scheduled"),
        (queue.c.id > head.c.id, "held"),
        else_="ready",
    )
    stuck_after = func.coalesce(sinks.c.stuck_after, literal(_STUCK_AFTER))
    stuck = and_(queue.c.parked_at.is_(None), queue.c.first_due_at < _now() - stuck_after)
    down = or_(false(), *(_goes_to(queue, sink, destination) for sink, destination in without))
    oldest = func.extract("epoch", _now() - func.min(queue.c.first_due_at))
    statement = (
        select(
            queue.c.sink,
            queue.c.lane,
            state.label("state"),
            func.count(),
            func.count().filter(stuck),
            cast(oldest, Double),
            func.count().filter(~down),
        )
        .outerjoin(head, and_(*(head.c[column.name] == column for column in of_key)))
        .outerjoin(sinks, sinks.c.sink == queue.c.sink)
        .group_by(queue.c.sink, queue.c.lane, literal_column("state"))
    )
    return [Depth(*row) for row in await connection.execute(statement)]


def _now() -> ColumnElement[datetime]:
    return func.clock_timestamp(type_=DateTime(timezone=True))


def _goes_to(queue: Table, sink: str, destination: str) -> ColumnElement[bool]:
    hashed = func.hashtextextended(destination, cast(0, BigInteger))
    return and_(queue.c.sink == sink, queue.c.destination_hash == hashed)


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """What one sink still has to do."""

    sink: str
    pending: int
    """Everything in the queue that is not parked."""
    scheduled: int
    due: int
    """In line, and held by nothing."""
    held: int
    retrying: int
    stuck: int
    parked: int
    oldest_seconds: float | None
    """How long the oldest pending delivery has been due; None if none is."""
    lanes: int
    """How many of its lanes a relay owns."""

    @classmethod
    def of(cls, sink: str, depths: Iterable[Depth], lanes: int) -> SinkStatus:
        """Summed over the lanes of the sink."""
        rows = dict.fromkeys(PENDING, 0)
        stuck, oldest = 0, None
        for depth in depths:
            rows[depth.state] += depth.rows
            stuck += depth.stuck
            if depth.state != "parked" and depth.oldest_seconds >= 0:
                oldest = max(oldest or 0.0, depth.oldest_seconds)
        return cls(
            sink=sink,
            pending=sum(rows.values()) - rows["parked"],
            scheduled=rows["scheduled"],
            due=rows["ready"],
            held=rows["held"],
            retrying=rows["retrying"],
            stuck=stuck,
            parked=rows["parked"],
            oldest_seconds=oldest,
            lanes=lanes,
        )


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that lives."""

    relay_id: UUID
    name: str
    version: str
    started_at: datetime
    lanes: Mapping[str, int]
    """How many lanes it owns, by sink."""


@dataclass(frozen=True, slots=True)
class Status:
    """The whole at a glance."""

    sinks: Sequence[SinkStatus]
    relays: Sequence[Relay]

    @property
    def needs_attention(self) -> bool:
        """Whether something is stuck or parked."""
        return any(sink.stuck or sink.parked for sink in self.sinks)


async def status(connection: AsyncConnection) -> Status:
    """What every sink has to do, and which relays do it."""
    lanes, relays, sinks = table("outbox_lanes"), table("outbox_relays"), table("outbox_sinks")
    by_sink: dict[str, list[Depth]] = defaultdict(list)
    for depth in await depths(connection):
        by_sink[depth.sink].append(depth)
    owned: dict[UUID, dict[str, int]] = defaultdict(dict)
    leases = select(lanes.c.owner, lanes.c.sink, func.count()).where(lanes.c.expires_at > _now())
    for owner, sink, number in await connection.execute(leases.group_by(lanes.c.owner, lanes.c.sink)):
        owned[owner][sink] = number
    known = set(await connection.scalars(select(sinks.c.sink))) | by_sink.keys()
    living = (
        select(relays.c.relay_id, relays.c.name, relays.c.version, relays.c.started_at)
        .where(relays.c.expires_at > _now())
        .order_by(relays.c.started_at)
    )
    return Status(
        sinks=[
            SinkStatus.of(sink, by_sink[sink], sum(counts.get(sink, 0) for counts in owned.values()))
            for sink in sorted(known)
        ],
        relays=[Relay(*row, lanes=owned[row.relay_id]) for row in await connection.execute(living)],
    )
