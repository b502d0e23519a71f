"""What a relay does beside delivering: prune, compare settings, and look at what could be wrong.

That is who holds the floors back, and whether the tables fit together.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

import asyncpg

from outbox.errors import describe
from outbox.observe import emit
from outbox.relay.integrity import Integrity
from outbox.relay.prune import Prune
from outbox.relay.published import Published
from outbox.relay.waiting import wait_for
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


class Maintenance:
    """The housekeeping of one relay; several relays may do it at once."""

    def __init__(self, settings: Settings, relay: UUID) -> None:
        self._settings = settings
        self.published = Published(settings, relay)
        self._integrity = Integrity(settings)
        self._prune = Prune(settings)

    async def run(self, connection: asyncpg.Connection, ending: asyncio.Event) -> None:
        """Follows the policy, prunes, and names who holds the floors back, again and again until `ending`."""
        while not ending.is_set():
            await self.published.follow(connection, ending)
            try:
                await self._prune.round(connection, ending)
            except (asyncpg.PostgresError, TimeoutError) as error:
                # Delivering goes on without it: a right that is missing, a lock that is not to be had.
                emit("prune.failed", reason=describe(error))
            await self.published.check(connection)
            await self._name_long_writer(connection)
            await wait_for(ending, self._settings.prune_interval_seconds)
            # Not at once: a relay that starts may have a backlog before it.
            await self._integrity.look(connection, ending)

    async def _name_long_writer(self, connection: asyncpg.Connection) -> None:
        """Tells whose writing transaction has been open for long: it holds every floor."""
        found = await connection.fetchrow(_OLDEST_WRITER)
        if found and found["age"] > _LONG_WRITER_SECONDS:
            emit("floor.held", **found)
