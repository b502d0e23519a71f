"""How much is waiting, how long, and who is there to send it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.integrity import look, run
from outbox.operate.pages import COUNTED, LOOKED_AT
from outbox.operate.pauses import Pause, pauses
from outbox.operate.statements import DEPTHS
from outbox.schema import table
from outbox.schema.integrity import BY_INDEX, Amiss


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """What one sink still has to do. Each number is exact up to 10,000."""

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
    more: frozenset[str]
    """Of which of these there are more, or may be: it was not counted on."""
    oldest_seconds: float | None
    """How long the oldest pending delivery has been due; None if none is."""

    @classmethod
    def of(cls, sink: str, others: Iterable[SinkStatus] = ()) -> SinkStatus:
        """Sums up what several have to do, as one of this name."""
        parts = list(others)
        sums = {name: sum(getattr(part, name) for part in parts) for name in COUNTS}
        ages = [part.oldest_seconds for part in parts if part.oldest_seconds is not None]
        more = frozenset(name for part in parts for name in part.more)
        return cls(sink=sink, **sums, more=more, oldest_seconds=max(ages, default=None))


COUNTS = ("pending", "scheduled", "due", "held", "retrying", "stuck", "parked")
"""What is counted of a sink."""


async def depths(connection: AsyncConnection, *, unserved: str | None = None) -> list[SinkStatus]:
    """Returns what every sink has to do, from a bounded number of rows, however many there are.

    Sinks that no relay ever served are one, of the name `unserved`, if that is given.
    """
    await run(connection, BY_INDEX)
    served: list[SinkStatus] = []
    others: list[SinkStatus] = []
    for row in await run(connection, DEPTHS, COUNTED + 1):
        (served if row.is_served or unserved is None else others).append(_depth(row))
    return [*served, *([SinkStatus.of(unserved, others)] if unserved is not None and others else ())]


def _depth(row: Any) -> SinkStatus:
    counts = {name: min(getattr(row, name), COUNTED) for name in COUNTS if name != "pending"}
    more = {name for name in counts if getattr(row, name) > COUNTED}
    if row.in_line > COUNTED or (row.looked_at or 0) > LOOKED_AT:
        more |= {"due", "held", "stuck"}
    pending = sum(counts[name] for name in ("scheduled", "due", "held", "retrying"))
    if pending > COUNTED or more & {"scheduled", "due", "held", "retrying"}:
        more.add("pending")
    return SinkStatus(
        sink=row.sink,
        pending=min(pending, COUNTED),
        **counts,
        more=frozenset(more),
        oldest_seconds=row.oldest_seconds,
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
    pauses: Sequence[Pause]
    """What is paused by operators."""
    amiss: Amiss
    """Rows that do not fit together."""

    @property
    def needs_attention(self) -> bool:
        """True if something is stuck or parked, or does not fit together."""
        return bool(self.amiss) or any(sink.stuck or sink.parked for sink in self.sinks)


async def status(connection: AsyncConnection) -> Status:
    """Returns what every sink has to do, and which relays do it."""
    lanes, relays = table("outbox_lanes"), table("outbox_relays")
    owned: dict[UUID, dict[str, int]] = defaultdict(dict)
    leases = select(lanes.c.owner, lanes.c.sink, func.count()).where(lanes.c.expires_at > func.now())
    for owner, sink, number in await connection.execute(leases.group_by(lanes.c.owner, lanes.c.sink)):
        owned[owner][sink] = number
    living = (
        select(relays.c.relay_id, relays.c.name, relays.c.version, relays.c.started_at)
        .where(relays.c.expires_at > func.now())
        .order_by(relays.c.started_at)
    )
    return Status(
        sinks=await depths(connection),
        relays=[RelayStatus(*row, lanes=owned[row.relay_id]) for row in await connection.execute(living)],
        pauses=await pauses(connection),
        amiss=await look(connection),
    )
