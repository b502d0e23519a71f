"""What a relay does beside delivering: prune, publish its settings, and look at what could be wrong.

That is who holds the floors back, and whether the tables fit together.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import asyncpg

from outbox.errors import describe
from outbox.observe import emit
from outbox.relay.integrity import Integrity
from outbox.relay.prune import Prune
from outbox.schema import in_schema
from outbox.settings import Settings

_LONG_WRITER_SECONDS = 60.0
# In any database of the server: snapshots know no databases.
_OLDEST_WRITER = """
    SELECT pid, prepared, extract(epoch FROM clock_timestamp() - since)::float AS age
    FROM (
        SELECT pid, NULL AS prepared, xact_start AS since, backend_xid AS xid FROM pg_stat_activity
        UNION ALL
        SELECT NULL, gid, prepared, transaction FROM pg_prepared_xacts
    ) AS writer
    WHERE xid IS NOT NULL AND since IS NOT NULL
    ORDER BY age(xid) DESC LIMIT 1
"""
PUBLISH = """
    WITH before AS (
        SELECT on_park FROM {schema}outbox_sinks WHERE sink = $1
    ), parked AS (
        UPDATE {schema}outbox_queue SET blocks = ($3 = 'hold')
        FROM before
        WHERE sink = $1 AND parked_at IS NOT NULL AND before.on_park <> $3
    )
    INSERT INTO {schema}outbox_sinks (sink, stuck_after, on_park, holds_ended)
    VALUES ($1, $2, $3, (1000000 * extract(epoch FROM clock_timestamp()))::bigint)
    ON CONFLICT (sink) DO UPDATE
    SET stuck_after = excluded.stuck_after, on_park = excluded.on_park,
        updated_at = clock_timestamp(), holds_ended = outbox_sinks.holds_ended + 1
    WHERE (outbox_sinks.stuck_after, outbox_sinks.on_park) <> (excluded.stuck_after, excluded.on_park)
"""
"""What the view needs of a sink's settings. Held keys follow the park policy when it changes.

Where the row was deleted meanwhile, its counter starts at what it never was.
"""


class Maintenance:
    """The housekeeping of one relay; several relays may do it at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._publish = in_schema(PUBLISH, settings.database_schema)
        self._published = in_schema("SELECT sink FROM {schema}outbox_sinks", settings.database_schema)
        self._integrity = Integrity(settings)
        self._prune = Prune(settings)

    async def publish_settings(self, connection: asyncpg.Connection) -> None:
        """Tells the view `outbox_state` what only settings know."""
        for name in self._settings.sink_names:
            sink = self._settings.sink(name)
            await connection.execute(
                self._publish, name, timedelta(seconds=sink.stuck_after_seconds), sink.on_park
            )

    async def _publish_anew(self, connection: asyncpg.Connection) -> None:
        """Tells it again where somebody has deleted it."""
        known = {sink for (sink,) in await connection.fetch(self._published)}
        if not known.issuperset(self._settings.sink_names):
            await self.publish_settings(connection)

    async def run(self, connection: asyncpg.Connection, ending: asyncio.Event) -> None:
        """Prunes, and names who holds the floors back, every now and then until `ending`."""
        while not ending.is_set():
            try:
                await self._prune.round(connection, ending)
            except (asyncpg.PostgresError, TimeoutError) as error:
                # Delivering goes on without it: a right that is missing, a lock that is not to be had.
                emit("prune.failed", reason=describe(error))
            await self._publish_anew(connection)
            await self._integrity.look(connection, ending)
            await self._name_long_writer(connection)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.prune_interval_seconds):
                    await ending.wait()

    async def _name_long_writer(self, connection: asyncpg.Connection) -> None:
        """Tells whose writing transaction has been open for long: it holds every floor."""
        found = await connection.fetchrow(_OLDEST_WRITER)
        if found and found["age"] > _LONG_WRITER_SECONDS:
            emit("floor.held", **found)
