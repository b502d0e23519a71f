"""The pump's few statements: fetch a batch, settle it.

Every statement reads and writes one sink's lanes that the caller owns. Whoever connects through
`relay_connection` gets the planner settings that these statements need; nobody else may inherit them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from outbox.database import Session, dial
from outbox.errors import describe
from outbox.message import Delivery, Sent
from outbox.relay.statements import (
    DELIVER,
    EXPIRE,
    FAIL,
    FETCH,
    GONE,
    MARK_UNCERTAIN,
    OUTLINE,
    Snapshot,
)
from outbox.relay.verdict import Failure, Flaw
from outbox.schema import in_schema
from outbox.settings import Settings

NO_DATABASE = (
    OSError,  # a TimeoutError is one
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server's last words came while nothing was asked
)
"""What connecting raises, and a statement on the relay's own connection, where it cannot go on."""


class ConnectionLost(Exception):
    """A connection to the database ended. Only this ends the session of all loops; an SQL error does not."""


# A plan made while the tables were empty, or from statistics that are older than the queue's content,
# is wrong for ever or at the worst time. One plan is right for these statements: nested loops over
# indexes.
_PLANNER = {
    "plan_cache_mode": "force_generic_plan",
    # Not jit = off: asyncpg switches it off itself to look a type up, and leaves what it then finds.
    "jit_above_cost": "-1",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # Where a role or a database has set them otherwise, nothing would be left to plan with.
    "enable_nestloop": "on",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_sort": "on",
    "from_collapse_limit": "8",
    "join_collapse_limit": "8",
    "work_mem": "4096",
}
_FLAW = len(Delivery._fields)
"""Where in a fetched row its flaw is; the snapshot's columns follow."""

UNREADABLE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, ArithmeticError, ValueError)
"""What a fetch raises where the values of a row cannot be sent by the server, or not be had in Python."""


class Position(NamedTuple):
    """Where a pump stands in one lane it owns."""

    lane: int
    epoch: int
    floor: int
    """Nothing with an id up to here is left to find in line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a pump asks for in one fetch."""

    positions: Sequence[Position]
    """Served in this order."""
    rows: int
    """At most so many deliveries."""
    budget: int
    """At most about so many bytes, but at least one delivery."""
    without: Sequence[str] = ()
    """Destinations to leave out."""
    holds_ended: int = 0
    """As last seen. Unless the snapshot has the same, all floors are taken for zero."""

    def values(self, sink: str) -> tuple[Any, ...]:
        """Returns the parameters of the statement `FETCH`."""
        lanes = [position.lane for position in self.positions]
        floors = [position.floor for position in self.positions]
        return sink, lanes, floors, self.rows, self.budget, list(self.without), self.holds_ended


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch brought, in id order within each lane's line."""

    snapshot: Snapshot
    deliveries: list[Delivery]
    flaws: dict[int, Flaw]
    """By id: the deliveries that cannot be sent, of which nothing was read."""
    full: bool
    """Whether it was cut by the number of rows or bytes, so that more may be there."""


def _retry_by(failure: Failure) -> datetime | None:
    """Returns when the retry of a failed delivery must be due at the latest; None: whenever.

    What may have arrived is tried again though it is too late, and not in haste.
    """
    if failure.delay is None or (failure.uncertain and failure.delivery.expired):
        return None
    return failure.delivery.expires_at


def _fetched(records: Sequence[Any], request: Request) -> Fetched:
    snapshot = Snapshot(*records[0][_FLAW + 1 :])
    deliveries = [Delivery._make(record[:_FLAW]) for record in records if record[0] is not None]
    flaws = {
        record[0]: Flaw(record[_FLAW], holds=record[_FLAW] != GONE)
        for record in records
        if record[_FLAW] is not None
    }
    full = len(deliveries) >= request.rows or sum(d.size for d in deliveries) >= request.budget
    return Fetched(snapshot, deliveries, flaws, full)


def _unreadable(records: Sequence[Any], reason: str) -> Fetched:
    """Returns a fetch of one row, which cannot be read for this reason."""
    fetched = _fetched(records, Request(positions=(), rows=1, budget=1))
    flaws = {delivery.id: Flaw(f"it cannot be read: {reason}") for delivery in fetched.deliveries}
    return replace(fetched, flaws=flaws | fetched.flaws, full=True)


@asynccontextmanager
async def relay_connection(settings: Settings, name: str) -> AsyncIterator[asyncpg.Connection]:
    """Opens a connection with the planner settings for the block; `name` is its application_name.

    Behind a transaction pooler the settings would stay on a server connection that others use next, so
    there they are set in each transaction instead, and no statement is cached.
    """
    pooled = settings.database_pooler == "transaction"
    session = Session(name, pooled, settings.lease_seconds, own=True, settings=_PLANNER)
    connection = await dial(settings.address, session)
    try:
        yield connection
    except Exception as error:
        if connection.is_closed():
            raise ConnectionLost(describe(error)) from error
        raise
    finally:
        # Whatever state it is in; nothing is open that a rollback would not undo.
        connection.terminate()


class Store:
    """The statements of one sink, run on one connection for one relay."""

    def __init__(self, connection: asyncpg.Connection, settings: Settings, sink: str, relay: UUID) -> None:
        self._connection = connection
        self._schema = settings.database_schema
        self._sink = sink
        self._relay = relay

    async def fetch(self, request: Request) -> Fetched:
        """Returns the next deliveries that may go out.

        Where a row cannot be read, whatever the reason, fewer are asked for until it stands alone.
        """
        try:
            records = await self.run(FETCH, *request.values(self._sink))
        except UNREADABLE as error:
            if request.rows > 1:
                return await self.fetch(replace(request, rows=request.rows // 2))
            return _unreadable(await self.run(OUTLINE, *request.values(self._sink)), describe(error))
        return _fetched(records, request)

    async def deliver(self, sent: Sequence[tuple[Delivery, Sent]]) -> tuple[int, float]:
        """Records what the sink has.

        Returns how many were still to be recorded, and how many seconds ago the oldest of them was due.
        """
        records = await self.run(
            DELIVER,
            self._sink,
            self._relay,
            [delivery.lane for delivery, _ in sent],
            [delivery.id for delivery, _ in sent],
            [result.partition for _, result in sent],
            [result.offset for _, result in sent],
            [result.receivers for _, result in sent],
        )
        count, oldest = records[0]
        return count, oldest or 0.0

    async def fail(self, positions: Sequence[Position], failures: Sequence[Failure]) -> set[int]:
        """Records failures; returns the ids recorded, without those whose lane is no longer ours."""
        records = await self.run(
            FAIL,
            *self._fence(positions),
            [f.delivery.lane for f in failures],
            [f.delivery.id for f in failures],
            [int(f.counted) for f in failures],
            [f.reason for f in failures],
            [f.delay for f in failures],
            [_retry_by(f) for f in failures],
            [f.blocks for f in failures],
            [f.uncertain for f in failures],
        )
        return {record[0] for record in records}

    async def mark_uncertain(self, positions: Sequence[Position], deliveries: Sequence[Delivery]) -> None:
        """Records that these deliveries may have arrived."""
        await self.run(
            MARK_UNCERTAIN,
            *self._fence(positions),
            [d.lane for d in deliveries],
            [d.id for d in deliveries],
        )

    async def expire(self, positions: Sequence[Position], deliveries: Sequence[Delivery]) -> set[int]:
        """Gives deliveries up as too late; returns the ids, without those whose lane is no longer ours."""
        records = await self.run(
            EXPIRE, *self._fence(positions), [d.lane for d in deliveries], [d.id for d in deliveries]
        )
        return {record[0] for record in records}

    def _fence(self, positions: Sequence[Position]) -> tuple[str, UUID, list[int], list[int]]:
        return self._sink, self._relay, [p.lane for p in positions], [p.epoch for p in positions]

    async def run(self, statement: str, *values: Any) -> list[Any]:
        """Runs a statement of this sink; returns its rows."""
        found: list[Any] = await self._connection.fetch(in_schema(statement, self._schema), *values)
        return found
