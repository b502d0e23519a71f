"""The pump's few statements: fetch a batch, settle it.

Every statement reads and writes one sink's lanes that the caller owns. Whoever connects through
`relay_connection` gets the planner settings that these statements need; nobody else may inherit them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from outbox.database import Session, dial
from outbox.errors import describe
from outbox.message import Delivery, Sent
from outbox.observe import emit
from outbox.relay.batch import Fetched, Request, Walk, fetched, unreadable
from outbox.relay.settlement import DELIVER, DELIVER_AGAIN, EXPIRE, FAIL, MARK_UNCERTAIN, WITHOUT_NOTE
from outbox.relay.statements import FETCH, HISTORY, LOOK_BACK, OUTLINE
from outbox.relay.verdict import Failure
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
    # No lane is walked twice alike, and it would keep what the walks read.
    "enable_memoize": "off",
    # Where a role or a database has set them otherwise, nothing would be left to plan with.
    "enable_nestloop": "on",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_sort": "on",
    "from_collapse_limit": "8",
    "join_collapse_limit": "8",
}
UNREADABLE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, ArithmeticError, ValueError)
"""What a fetch raises where the values of a row cannot be sent by the server, or not be had in Python."""


class Position(NamedTuple):
    """A lane that a pump owns, as it took it."""

    lane: int
    epoch: int


def _retry_by(failure: Failure) -> datetime | None:
    """Returns when the retry of a failed delivery must be due at the latest; None: whenever.

    What may have arrived is tried again though it is too late, and not in haste.
    """
    if failure.delay is None or (failure.uncertain and failure.delivery.expired):
        return None
    return failure.delivery.expires_at


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


async def tells_history(connection: asyncpg.Connection) -> bool:
    """True if the database tells which of its histories this is; some hosted ones do not."""
    try:
        await connection.fetchval(f"SELECT {HISTORY}")
    except asyncpg.PostgresError:
        return False
    return True


class Store:
    """The statements of one sink, run on one connection for one relay."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        settings: Settings,
        sink: str,
        relay: UUID,
        *,
        tells_history: bool = True,
    ) -> None:
        self._connection = connection
        self._tells_history = tells_history
        self._history: str | None = None
        """Of the last fetch: what is settled is settled in that, or not at all."""
        self._schema = settings.database_schema
        self._sink = sink
        self._relay = relay

    async def fetch(self, request: Request) -> Fetched:
        """Returns the next deliveries that may go out.

        Where a row cannot be read, whatever the reason, fewer are asked for until it stands alone.
        """
        brought = await self._fetch(request)
        self._history = brought.snapshot.history
        return brought

    async def _fetch(self, request: Request) -> Fetched:
        try:
            return fetched(await self.run(FETCH, *request.values(self._sink)), request)
        except UNREADABLE:
            if request.rows > 1:
                return await self._fetch(replace(request, rows=request.rows // 2))
            return await self._fetch_alone(request)

    async def _fetch_alone(self, request: Request) -> Fetched:
        """Returns the next delivery; where it cannot be read, only that it is there, and why."""
        before = await self.run(OUTLINE, *request.values(self._sink))
        try:
            return fetched(await self.run(FETCH, *request.values(self._sink)), request)
        except UNREADABLE as error:
            after = await self.run(OUTLINE, *request.values(self._sink))
            if before[0][0] == after[0][0]:
                return unreadable(after, request, describe(error))
            # Another came before it meanwhile, and perhaps nothing is wrong with that one.
            return await self._fetch_alone(request)

    async def look_back(self, walks: Sequence[Walk], after: Sequence[int], apart: Sequence[str]) -> list[Any]:
        """Returns for each lane of a line how far a walk goes, and what is below its floor by mistake."""
        lanes, floors = [walk.lane for walk in walks], [walk.floor for walk in walks]
        line, depth = (walks[0].line, walks[0].most) if walks else (None, 0)
        return await self.run(LOOK_BACK, self._sink, lanes, after, floors, line, list(apart), depth)

    async def deliver(self, sent: Sequence[tuple[Delivery, Sent]]) -> tuple[int, float]:
        """Records what the sink has.

        Returns how many were still to be recorded, and how many seconds ago the oldest of them was due.
        """
        values = (
            self._sink,
            self._relay,
            [delivery.lane for delivery, _ in sent],
            [delivery.id for delivery, _ in sent],
            [result.partition for _, result in sent],
            [result.offset for _, result in sent],
            [result.receivers for _, result in sent],
        )
        history, ids = self._same(delivery for delivery, _ in sent)
        try:
            records = await self.run(DELIVER, *values, history) if history else []
        except asyncpg.UniqueViolationError:
            records = []
        count, oldest = (records or await self.run(DELIVER_AGAIN, *values, history, ids))[0]
        return count, oldest or 0.0

    async def fail(self, positions: Sequence[Position], failures: Sequence[Failure]) -> set[int]:
        """Records failures; returns the ids recorded, without those whose lane is no longer ours."""
        records = await self._run_noting(
            FAIL,
            *self._fence(positions),
            [f.delivery.lane for f in failures],
            [f.delivery.id for f in failures],
            [int(f.counted) for f in failures],
            [self._storable(f.reason) for f in failures],
            [f.delay for f in failures],
            [_retry_by(f) for f in failures],
            [f.uncertain for f in failures],
            *self._same(f.delivery for f in failures),
        )
        return {record[0] for record in records}

    async def mark_uncertain(self, positions: Sequence[Position], deliveries: Sequence[Delivery]) -> None:
        """Records that these deliveries may have arrived."""
        await self.run(
            MARK_UNCERTAIN,
            *self._fence(positions),
            [d.lane for d in deliveries],
            [d.id for d in deliveries],
            *self._same(deliveries),
        )

    async def expire(self, positions: Sequence[Position], deliveries: Sequence[Delivery]) -> set[int]:
        """Gives deliveries up as too late; returns the ids, without those whose lane is no longer ours."""
        records = await self._run_noting(
            EXPIRE,
            *self._fence(positions),
            [d.lane for d in deliveries],
            [d.id for d in deliveries],
            *self._same(deliveries),
        )
        return {record[0] for record in records}

    async def _run_noting(self, statement: str, *values: Any) -> list[Any]:
        """Runs a statement that leaves notes; without them where the grants are older than notes are."""
        try:
            return await self.run(statement, *values)
        except asyncpg.InsufficientPrivilegeError as error:
            emit("notes.forbidden", reason=describe(error))
            return await self.run(WITHOUT_NOTE[statement], *values)

    def _storable(self, reason: str) -> str:
        """Returns a reason in characters that the database has, whatever a sink or a row put into it."""
        encoding = self._connection.get_settings().server_encoding
        if encoding in ("UTF8", "SQL_ASCII"):
            return reason
        return reason.encode("ascii", "backslashreplace").decode()

    def _fence(self, positions: Sequence[Position]) -> tuple[str, UUID, list[int], list[int]]:
        return self._sink, self._relay, [p.lane for p in positions], [p.epoch for p in positions]

    def _same(self, deliveries: Iterable[Delivery]) -> tuple[str | None, list[UUID]]:
        """Returns what tells that ids mean what they meant: the history, or else each message."""
        # unnest takes what is missing for null.
        ids = [delivery.message_id for delivery in deliveries] if self._history is None else []
        return self._history, ids

    async def run(self, statement: str, *values: Any) -> list[Any]:
        """Runs a statement of this sink; returns its rows."""
        sql = statement if self._tells_history else statement.replace(HISTORY, "NULL::text")
        found: list[Any] = await self._connection.fetch(in_schema(sql, self._schema), *values)
        return found
