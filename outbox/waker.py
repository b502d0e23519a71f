"""Waking relays after a commit, so that what is written after a silence goes out at once.

    async with Waker(engine) as waker:
        async with session.begin():
            await write(session, message)
        waker.wake()

A relay that is not woken finds everything by its own looks, a little later; so it does where a wake is lost,
and where nobody hears it, as behind a pooler in transaction mode. Waking twice, or too early, is harmless.

Never in the transaction of the messages: whoever commits a NOTIFY waits for all others that do. From any
language, after the commit, and a hundred times a second at the most:

    SELECT pg_notify('outbox_' || CAST('outbox' AS regclass)::oid, '')
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Self

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.errors import describe
from outbox.policy import Backoff
from outbox.schema import in_schema
from outbox.schema.waking import WAKE
from outbox.settings import Settings, loaded

_log = logging.getLogger(__name__)

_AGAIN_SECONDS = 0.01
"""Between two wakes at least: what is committed meanwhile has one together."""
_PAUSE = Backoff(first=0.5, longest=30.0)


class Waker:
    """Wakes relays from within the process that writes, as long as its block lasts.

    It takes one connection of the engine when it first wakes, and keeps it. Without `settings` the
    environment's count, for the schema of the outbox.
    """

    def __init__(self, engine: AsyncEngine, *, settings: Settings | None = None) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        schema = (settings or loaded()).database_schema
        # There is nothing to make durable, so it waits for no disk.
        self._statement = text(
            f"SELECT set_config('synchronous_commit', 'off', true), {in_schema(WAKE, schema)}"
        )
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="outbox waker")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def wake(self) -> None:
        """Wakes the relays soon, from any thread, and takes no time; outside of its block it does not."""
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wanted.set)

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wanted.wait()
            try:
                async with self._engine.connect() as connection:
                    while True:
                        await self._wanted.wait()
                        self._wanted.clear()
                        await connection.execute(self._statement)
                        failures = 0
                        await asyncio.sleep(_AGAIN_SECONDS)
            except (OSError, SQLAlchemyError) as error:
                failures += 1
                self._wanted.set()
                pause = _PAUSE.ceiling(failures)
                _log.warning("wakes no relay for %g s: %s", pause, describe(error))
                await asyncio.sleep(pause)
