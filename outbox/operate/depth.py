"""How much is waiting, how long, and who is there to send it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    DateTime,
    Double,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.integrity import look
from outbox.schema import table
from outbox.schema.integrity import Amiss

_LONG_AGO = cast(literal("epoch"), DateTime(timezone=True))
"""Nothing is told to be due for longer, whatever somebody wrote for a time."""

_STUCK_AFTER = timedelta(minutes=5)
"""Where no relay has written the sink's own, as in the view."""


@dataclass(frozen=True, slots=True)
class Depth:
    """What is in one lane's queue: deliveries by state."""

    sink: str
    lane: int
    scheduled: int
    ready: int
    held: int
    retrying: int
    parked: int
    stuck: int
    oldest_seconds: float | None
    """How long the oldest that is not parked has been due; None if none is due."""


async def depths(connection: AsyncConnection, *, unserved: str | None = None) -> list[Depth]:
    """Returns what is in the queue, by sink and lane.

    Sinks that no relay ever served are one, of the name `unserved`, if that is given.
    The states are those of the view, with the holds found by one hash join instead of a look-up per
    row: on 1,000,000 rows 0.3 instead of 2 s.
    """
    queue, sinks = table("outbox_queue"), table("outbox_sinks")
    of_key = (queue.c.sink, queue.c.lane, queue.c.key_hash)
    first = func.min(queue.c.id).label("id")
    head = select(*of_key, first).where(queue.c.blocks).group_by(*of_key).cte("head")
    now = func.now(type_=DateTime(timezone=True))

    parked = queue.c.parked_at.is_not(None)
    retrying = and_(queue.c.due_at.is_not(None), queue.c.last_error.is_not(None))
    scheduled = and_(queue.c.due_at > now, queue.c.last_error.is_(None))
    held = func.coalesce(queue.c.id > head.c.id, false())
    waits = func.coalesce(queue.c.due_at > now, false())
    in_line = and_(~parked, ~retrying, ~waits)
    overdue = queue.c.first_due_at < now - func.coalesce(sinks.c.stuck_after, literal(_STUCK_AFTER))
    due_since = func.min(func.greatest(queue.c.first_due_at, _LONG_AGO)).filter(
        ~parked, queue.c.first_due_at <= now
    )

    sink = (
        queue.c.sink
        if unserved is None
        else case((sinks.c.sink.is_not(None), queue.c.sink), else_=literal(unserved))
    ).label("name")

    states = (
        scheduled,
        and_(in_line, ~held),
        and_(in_line, held),
        retrying,
        parked,
        and_(~parked, overdue),
    )
    statement = (
        select(
            sink,
            queue.c.lane,
            *(func.count().filter(state) for state in states),
            cast(func.extract("epoch", now - due_since), Double),
        )
        .outerjoin(head, and_(*(head.c[column.name] == column for column in of_key)))
        .outerjoin(sinks, sinks.c.sink == queue.c.sink)
        .group_by(sink, queue.c.lane)
    )
    return [Depth(*row) for row in await connection.execute(statement)]


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

    @classmethod
    def of(cls, sink: str, depths: Sequence[Depth]) -> SinkStatus:
        """Sums up the depths of one sink's lanes."""
        scheduled, due, held, retrying, stuck, parked = (
            sum(getattr(depth, name) for depth in depths)
            for name in ("scheduled", "ready", "held", "retrying", "stuck", "parked")
        )
        ages = [depth.oldest_seconds for depth in depths if depth.oldest_seconds is not None]
        return cls(
            sink=sink,
            pending=scheduled + due + held + retrying,
            scheduled=scheduled,
            due=due,
            held=held,
            retrying=retrying,
            stuck=stuck,
            parked=parked,
            oldest_seconds=max(ages, default=None),
        )


@dataclass(frozen=True, slots=True)
class RelayStatus:
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
    relays: Sequence[RelayStatus]
    amiss: Amiss
    """Rows that do not fit together."""

    @property
    def needs_attention(self) -> bool:
        """True if something is stuck or parked, or does not fit together."""
        return bool(self.amiss) or any(sink.stuck or sink.parked for sink in self.sinks)


async def status(connection: AsyncConnection) -> Status:
    """Returns what every sink has to do, and which relays do it."""
    lanes, relays, sinks = table("outbox_lanes"), table("outbox_relays"), table("outbox_sinks")
    by_sink: dict[str, list[Depth]] = defaultdict(list)
    for depth in await depths(connection):
        by_sink[depth.sink].append(depth)
    owned: dict[UUID, dict[str, int]] = defaultdict(dict)
    leases = select(lanes.c.owner, lanes.c.sink, func.count()).where(lanes.c.expires_at > func.now())
    for owner, sink, number in await connection.execute(leases.group_by(lanes.c.owner, lanes.c.sink)):
        owned[owner][sink] = number
    known = set(await connection.scalars(select(sinks.c.sink))) | by_sink.keys()
    living = (
        select(relays.c.relay_id, relays.c.name, relays.c.version, relays.c.started_at)
        .where(relays.c.expires_at > func.now())
        .order_by(relays.c.started_at)
    )
    return Status(
        sinks=[SinkStatus.of(sink, by_sink[sink]) for sink in sorted(known)],
        relays=[RelayStatus(*row, lanes=owned[row.relay_id]) for row in await connection.execute(living)],
        amiss=await look(connection),
    )
