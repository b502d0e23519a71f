"""Deletes what was done long ago: a row of `outbox` with its receipt.

Receipts are walked by their ids, in steps. They are settled about in that order, so one walk goes on each
time from where it last found something old. Nothing says that they are, though: what was late, or comes from
a restore, is found by a second walk over all of them, a bounded part in each round.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import asyncpg

from outbox.observe import emit
from outbox.schema import in_schema
from outbox.schema.lookup import is_one
from outbox.settings import Settings

_ROWS = 1_000
"""Looked at in one step, and so deleted at the most."""
_IN_VAIN = 200
"""How many steps of the second walk may find nothing in one round: about 0.1 s of the database's time."""

PRUNE = f"""
    WITH looked AS MATERIALIZED (
        SELECT id, settled_at FROM {{schema}}outbox_receipts WHERE id > $1 ORDER BY id LIMIT $2
    ), old AS MATERIALIZED (
        SELECT id FROM looked WHERE settled_at < now() - $3::double precision * interval '1 second'
    ), judged AS MATERIALIZED (
        SELECT old.id, coalesce(written.is_needed, false) AS is_needed
        FROM old LEFT JOIN LATERAL (
            SELECT EXISTS (
                SELECT FROM {{schema}}outbox_queue q WHERE q.sink = o.sink AND q.lane = o.lane AND q.id = o.id
            ) OR o.sink <> ALL ($4::text[]) AND EXISTS (
                SELECT FROM {{schema}}outbox_relays r
                WHERE r.expires_at > clock_timestamp() AND o.sink = ANY (r.sinks)
            ) AS is_needed
            FROM {{schema}}outbox o WHERE o.id = old.id OFFSET 0
        ) AS written ON true
    ), receipts AS (
        DELETE FROM {{schema}}outbox_receipts r USING judged
        WHERE {is_one("r.id", "judged.id")} AND NOT judged.is_needed
        RETURNING r.id
    ), written AS (
        DELETE FROM {{schema}}outbox o USING receipts WHERE {is_one("o.id", "receipts.id")}
    )
    SELECT (SELECT count(*) FROM receipts) AS rows, max(id) AS last_id FROM looked
"""
"""One step, of row and receipt together; several relays may at once.

What is in the queue again stays, and what is of a sink that only other relays serve: they have a retention of
their own.
"""

_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1s'"


class Walk(NamedTuple):
    """Where a walk ended."""

    rows: int
    """Deleted in it."""
    found: int
    """The id up to which it last deleted something."""
    end: int
    """The id up to which it looked; 0 if it came to the end."""


class Prune:
    """The pruning of one relay; several relays may do it at once."""

    def __init__(self, settings: Settings) -> None:
        self._statement = in_schema(PRUNE, settings.database_schema)
        self._retention = settings.retention
        self._sinks = settings.sink_names
        self._line = 0
        """Where the walk in line goes on."""
        self._whole = 0
        """Where the walk over everything goes on."""

    async def round(self, connection: asyncpg.Connection, ending: asyncio.Event) -> None:
        """Deletes what is old in line, then a part of what is not; until `ending`."""
        line = await self._walk(connection, ending, self._line, in_vain=0)
        whole = await self._walk(connection, ending, self._whole, in_vain=_IN_VAIN)
        self._whole = whole.end
        self._line = line.found if line.rows else whole.found if whole.rows else self._line
        if rows := line.rows + whole.rows:
            emit("prune.done", rows=rows)

    async def _walk(
        self, connection: asyncpg.Connection, ending: asyncio.Event, after: int, *, in_vain: int
    ) -> Walk:
        walk = Walk(0, after, after)
        while not ending.is_set():
            rows, last = await self._step(connection, walk.end)
            if last is None:
                return walk._replace(end=0)
            walk = Walk(walk.rows + rows, last if rows else walk.found, last)
            if not rows:
                if not in_vain:
                    break
                in_vain -= 1
        return walk

    async def _step(self, connection: asyncpg.Connection, after: int) -> tuple[int, int | None]:
        async with connection.transaction():
            await connection.execute(_LOCK_TIMEOUT)
            rows, last = await connection.fetchrow(
                self._statement, after, _ROWS, self._retention, self._sinks
            )
        return rows, last
