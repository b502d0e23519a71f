"""What there is to explain a delivery by: who holds its key, owns its lane, is down, has not committed.

Each question reads a few rows, whatever is in the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.integrity import run
from outbox.operate.state import DeliveryState
from outbox.schema import table

_HEADS = """
    SELECT head.id, head.due_at, head.parked_at, head.attempts, head.last_error
    FROM {schema}outbox_queue own
    JOIN {schema}outbox_queue head
      ON head.sink = own.sink AND head.lane = own.lane AND head.key_hash = own.key_hash
     AND head.blocks AND head.id < own.id
    WHERE own.sink = $1 AND own.lane = $2 AND own.id = $3
    ORDER BY head.id LIMIT 20
"""
_LANE = """
    SELECT l.expires_at > clock_timestamp() AS is_owned, l.expires_at, r.name
    FROM {schema}outbox_lanes l LEFT JOIN {schema}outbox_relays r ON r.relay_id = l.owner
    WHERE l.sink = $1 AND l.lane = $2
"""
_RELAYS = """
    SELECT name FROM {schema}outbox_relays
    WHERE $1 = ANY (sinks) AND expires_at > clock_timestamp() ORDER BY started_at
"""
_BREAKERS = """
    SELECT r.name, b.destination, b.reason, b.since
    FROM {schema}outbox_relays r
    CROSS JOIN jsonb_to_recordset(r.breakers)
        AS b (sink text, destination text, reason text, since timestamptz)
    WHERE r.expires_at > clock_timestamp() AND b.sink = $1
    ORDER BY b.since
"""
# The newest thousand receipts suffice to see that a sink is at work.
_LAST_DELIVERED = """
    SELECT max(r.settled_at)
    FROM (SELECT id, settled_at FROM {schema}outbox_receipts ORDER BY id DESC LIMIT 1000) AS r
    CROSS JOIN LATERAL (SELECT o.sink FROM {schema}outbox o WHERE o.id = r.id OFFSET 0) AS written
    WHERE written.sink = $1
"""
_WRITTEN = """
    SELECT (SELECT o.sink FROM {schema}outbox o WHERE o.id = $1) AS sink,
           $1 <= (SELECT last_value FROM {schema}outbox_id_seq) AS is_drawn
"""
# Whoever writes to the table holds this lock until it commits.
_WRITERS = """
    SELECT DISTINCT a.pid, a.xact_start, a.state, a.application_name, left(a.query, 200) AS query
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.relation = CAST('{schema}outbox' AS regclass) AND l.mode = 'RowExclusiveLock'
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY a.xact_start LIMIT 5
"""


@dataclass(frozen=True, slots=True)
class Head:
    """An earlier delivery that its key waits for."""

    id: int
    due_at: datetime | None
    parked_at: datetime | None
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True)
class LaneState:
    """Who owns a lane."""

    is_owned: bool
    lease_until: datetime | None
    relay: str | None


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """What a relay keeps back from."""

    relay: str
    destination: str | None
    """None is the whole sink."""
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Writer:
    """A session with an open transaction that wrote to the outbox."""

    pid: int
    since: datetime | None
    state: str | None
    application: str | None
    query: str | None


async def heads(connection: AsyncConnection, delivery: DeliveryState) -> Sequence[Head]:
    """Returns the deliveries that hold its key before it, first to last; twenty at the most."""
    found = await run(connection, _HEADS, delivery.sink, delivery.lane, delivery.id)
    return [Head(*row) for row in map(tuple, found)]


async def lane(connection: AsyncConnection, sink: str, number: int) -> LaneState:
    """Returns who owns a lane."""
    found = (await run(connection, _LANE, sink, number)).first()
    if found is None:
        return LaneState(False, None, None)  # noqa: FBT003 - nobody does
    return LaneState(bool(found.is_owned), found.expires_at, found.name)


async def relays(connection: AsyncConnection, sink: str) -> Sequence[str]:
    """Returns the names of the living relays that serve a sink."""
    return (await run(connection, _RELAYS, sink)).scalars().all()


async def breakers(connection: AsyncConnection, sink: str) -> Sequence[OpenBreaker]:
    """Returns which breakers of a sink are open, as its relays say."""
    return [OpenBreaker(*row) for row in map(tuple, await run(connection, _BREAKERS, sink))]


async def last_delivered(connection: AsyncConnection, sink: str) -> datetime | None:
    """Returns when something of a sink was last done; None: not lately."""
    found: datetime | None = (await run(connection, _LAST_DELIVERED, sink)).scalar()
    return found


async def written(connection: AsyncConnection, id_: int) -> tuple[str | None, bool]:
    """Returns the sink of an id's message (None: it is not there), and if the id was given out."""
    found: Any = (await run(connection, _WRITTEN, id_)).one()
    return found.sink, bool(found.is_drawn)


async def writers(connection: AsyncConnection) -> Sequence[Writer]:
    """Returns the sessions that have written to the outbox and not committed, the oldest first."""
    return [Writer(*row) for row in map(tuple, await run(connection, _WRITERS))]


async def now(connection: AsyncConnection) -> datetime:
    """Returns the database's time."""
    found: datetime = (await connection.scalars(select(func.clock_timestamp()))).one()
    return found


async def sinks(connection: AsyncConnection) -> frozenset[str]:
    """Returns the sinks that a relay serves or served."""
    return frozenset(await connection.scalars(select(table("outbox_sinks").c.sink)))
