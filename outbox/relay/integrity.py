"""Looks, a stretch at a time, whether the rows of the tables fit together, and remembers those that do not.

All relays walk together: how far they are is in `outbox_walks`, and one of them takes the next step. What
they find is in `outbox_amiss`, so that `outbox status` knows it wherever it is.
"""

from __future__ import annotations

import asyncio
from time import monotonic

import asyncpg

from outbox.errors import describe
from outbox.observe import emit
from outbox.schema import in_schema
from outbox.schema.integrity import DONE, FORGET, LOOK, QUEUED, WRITTEN, Amiss
from outbox.settings import Settings

_STRETCH_ROWS = 10_000
_REMEMBERED_ROWS = 10_000
_SECONDS = 1.0
"""For how long it walks each time, at the most."""

BEGIN = """
    INSERT INTO {schema}outbox_walks (walk) VALUES ('outbox'), ('outbox_queue') ON CONFLICT DO NOTHING
"""
_REMEMBERED = f"""remembered AS (
        INSERT INTO {{schema}}outbox_amiss (sink, lane, id)
        SELECT sink, lane, id FROM amiss
        LIMIT greatest(0, {_REMEMBERED_ROWS} - (SELECT count(*) FROM {{schema}}outbox_amiss))
        ON CONFLICT DO NOTHING
    )"""

WALK_OUTBOX = f"""
    WITH walk AS MATERIALIZED (
        SELECT id FROM {{schema}}outbox_walks WHERE walk = 'outbox' FOR UPDATE SKIP LOCKED
    ), stretch AS MATERIALIZED (
        SELECT written.id FROM walk CROSS JOIN LATERAL (
            SELECT o.id FROM {{schema}}outbox o WHERE o.id > walk.id ORDER BY o.id LIMIT $1
        ) AS written
    ), pending AS MATERIALIZED (
        SELECT place.id FROM stretch AS place WHERE NOT {DONE}
    ), amiss AS MATERIALIZED (
        SELECT place.* FROM pending CROSS JOIN LATERAL (
            SELECT o.sink, o.lane, o.id FROM {{schema}}outbox o WHERE o.id = pending.id OFFSET 0
        ) AS place
        WHERE NOT {QUEUED}
    ), {_REMEMBERED}, reached AS (
        SELECT count(*) = $1 AS more, max(id) AS id FROM stretch
    )
    UPDATE {{schema}}outbox_walks
    SET id = CASE WHEN reached.more THEN reached.id ELSE 0 END,
        ended_at = CASE WHEN reached.more THEN ended_at ELSE clock_timestamp() END
    FROM walk, reached WHERE walk = 'outbox' RETURNING reached.more
"""
"""Looks for messages that are neither queued nor done, from where the walk is; returns whether it goes on.

Of what is done it reads two indexes and no row.
"""

WALK_QUEUE = f"""
    WITH walk AS MATERIALIZED (
        SELECT sink, lane, id FROM {{schema}}outbox_walks WHERE walk = 'outbox_queue' FOR UPDATE SKIP LOCKED
    ), stretch AS MATERIALIZED (
        SELECT queued.* FROM walk CROSS JOIN LATERAL (
            SELECT q.sink, q.lane, q.id FROM {{schema}}outbox_queue q
            WHERE (q.sink, q.lane, q.id) > (walk.sink, walk.lane, walk.id)
            ORDER BY q.sink, q.lane, q.id LIMIT $1
        ) AS queued
    ), amiss AS MATERIALIZED (
        SELECT place.* FROM stretch AS place WHERE NOT {WRITTEN} OR {DONE}
    ), {_REMEMBERED}, reached AS (
        SELECT stretch.*, number.rows = $1 AS more
        FROM (SELECT count(*) AS rows FROM stretch) AS number
        LEFT JOIN (SELECT * FROM stretch ORDER BY sink DESC, lane DESC, id DESC LIMIT 1) AS stretch ON true
    )
    UPDATE {{schema}}outbox_walks
    SET sink = CASE WHEN reached.more THEN reached.sink ELSE '' END,
        lane = CASE WHEN reached.more THEN reached.lane ELSE 0 END,
        id = CASE WHEN reached.more THEN reached.id ELSE 0 END,
        ended_at = CASE WHEN reached.more THEN ended_at ELSE clock_timestamp() END
    FROM walk, reached WHERE walk = 'outbox_queue' RETURNING reached.more
"""
"""Looks for rows of the queue without message, or with a receipt already; returns whether it goes on."""

_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1s'"


class Integrity:
    """What one relay does to notice rows that do not fit together."""

    def __init__(self, settings: Settings) -> None:
        self._schema = settings.database_schema

    async def look(self, connection: asyncpg.Connection, ending: asyncio.Event) -> None:
        """Walks on for a while, and tells what is amiss."""
        try:
            await self._run(connection, BEGIN)
            for walk in (WALK_OUTBOX, WALK_QUEUE):
                await self._walk(connection, walk, ending)
            await self._run(connection, FORGET)
            found = Amiss(*await connection.fetchrow(in_schema(LOOK, self._schema)))
        except (asyncpg.PostgresError, TimeoutError) as error:
            # Delivering goes on without it: a right that is missing, a lock that is not to be had.
            emit("integrity.failed", reason=describe(error))
            return
        emit("integrity.checked", **found.counts)
        if found:
            emit("integrity.amiss", **found.counts)

    async def _walk(self, connection: asyncpg.Connection, walk: str, ending: asyncio.Event) -> None:
        until = monotonic() + _SECONDS / 2
        more = True
        while more and monotonic() < until and not ending.is_set():
            # Nothing comes back where another relay takes the step.
            more = await self._run(connection, walk, _STRETCH_ROWS) or False

    async def _run(self, connection: asyncpg.Connection, statement: str, *values: int) -> bool | None:
        async with connection.transaction():
            await connection.execute(_LOCK_TIMEOUT)
            found: bool | None = await connection.fetchval(in_schema(statement, self._schema), *values)
            return found
