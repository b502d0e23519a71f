"""Waiting in the database: for another run's end, and for locks; and who it is that one waits for.

It needs to know nothing of Alembic.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg

from outbox.terminal import visible

_log = logging.getLogger("outbox.migrate")

_LOOK_SECONDS = 0.1
_FIRST_WORD_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 10.0

# Of any role's sessions; what they do is told to their own role and to pg_read_all_stats alone.
_SESSION = """
    coalesce(
        format('pid %s (%s)', who.pid, concat_ws(
            ', ', coalesce(who.usename, who.backend_type), nullif(who.application_name, ''), who.state,
            'for ' || round(extract(epoch FROM clock_timestamp() - who.xact_start)) || ' s'
        )),
        'a prepared transaction'
    )
"""
_KEY = "SELECT hashtextextended(concat_ws('.', coalesce($1::text, current_schema()), $2::text), 0)"
_HOLDER = f"""
    SELECT {_SESSION} FROM pg_locks AS lock LEFT JOIN pg_stat_activity AS who USING (pid)
    WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
      AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (lock.classid::bigint << 32) | lock.objid::bigint = $1
"""
_WAIT = f"""
    SELECT waiting.query AS statement,
           extract(epoch FROM clock_timestamp() - waiting.query_start)::float AS seconds,
           string_agg({_SESSION}, ', ') AS holders
    FROM pg_stat_activity AS waiting
    CROSS JOIN LATERAL (SELECT DISTINCT unnest(pg_blocking_pids(waiting.pid)) AS pid) AS blocking
    LEFT JOIN pg_stat_activity AS who ON who.pid = blocking.pid
    WHERE waiting.pid = $1
    GROUP BY 1, 2
"""


class Wait(NamedTuple):
    """What a session waits for."""

    statement: str
    seconds: float
    """Since the statement began."""
    holders: str
    """Whose locks are in its way."""

    def __str__(self) -> str:
        """Tells in one line what the session waits for."""
        return f"{' '.join(self.statement.split())[:100]}: waiting for {self.holders}"


async def take_turn(session: asyncpg.Connection, schema: str | None, name: str) -> None:
    """Waits until no other session has the turn of this name; it is this session's until that ends.

    Another's end is asked for again and again, each time in a transaction of its own: a session that waits
    within Postgres has a snapshot, and a concurrent index build waits for every one that is older than it.
    """
    key = await session.fetchval(_KEY, schema, name)
    pause = 0.05
    while not await session.fetchval("SELECT pg_try_advisory_lock($1)", key):
        if pause > 1.0:
            holder = await session.fetchval(_HOLDER, key)
            _log.warning("Another migration of these tables is under way; waiting for %s", visible(holder))
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


class Onlooker:
    """Sees from a session of its own whom another one waits for, and says so where it is long."""

    def __init__(self, session: asyncpg.Connection, pid: int) -> None:
        self.last: Wait | None = None
        """The last wait that was seen; whoever wants to know of the next sets it to None."""
        self._session = session
        self._pid = pid

    @classmethod
    @asynccontextmanager
    async def of(cls, pid: int, session: asyncpg.Connection) -> AsyncIterator[Onlooker]:
        """Looks on, within the block, at the session with this process id."""
        onlooker = cls(session, pid)
        looking = asyncio.create_task(onlooker._look_on(), name="outbox migrate onlooker")
        try:
            yield onlooker
        finally:
            looking.cancel()
            await asyncio.wait((looking,))

    async def _look_on(self) -> None:
        patience = _FIRST_WORD_SECONDS
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            row = await self._session.fetchrow(_WAIT, self._pid)
            if row is None:
                patience = _FIRST_WORD_SECONDS
                continue
            self.last = Wait(**row)
            if self.last.seconds > patience:
                _log.warning("%s, since %.0f s", visible(str(self.last)), self.last.seconds)
                patience *= 2
