"""Writers at work while something else happens to the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Self

from tests.support.sql import connection
from tests.support.waiting import PATIENCE

_PAUSE_SECONDS = 0.05
_WRITE = """
    INSERT INTO outbox (message_id, type, sink, destination, key, payload)
    SELECT gen_random_uuid(), 't.happened', sink, destination, $3 || '-' || key, '{}'
    FROM unnest($1::text[], $2::text[]) AS wanted (sink, destination), generate_series(1, 3) AS key,
         generate_series(1, 5) AS burst
"""


class Writers:
    """Each writes bursts of keys that are its own, so that who writes a key takes turns."""

    def __init__(self) -> None:
        self.longest = 0.0
        """The longest that one transaction took, in seconds."""
        self._transactions = 0
        self._news = asyncio.Condition()
        self._over = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def at_work(
        cls, url: str, destinations: Mapping[str, str], *, count: int = 3
    ) -> AsyncIterator[Self]:
        """Some that write to these destinations, by sink, within the block; an error of one ends it."""
        writers = cls()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(writers._write(url, f"writer-{number}", destinations))
            try:
                yield writers
            finally:
                writers._over.set()

    async def more(self, transactions: int = 30) -> None:
        """Return once they have committed so many more."""
        wanted = self._transactions + transactions
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: self._transactions >= wanted)

    async def _write(self, url: str, name: str, destinations: Mapping[str, str]) -> None:
        async with connection(url) as db:
            while not self._over.is_set():
                began = monotonic()
                await db.execute(_WRITE, list(destinations), list(destinations.values()), name)
                self.longest = max(self.longest, monotonic() - began)
                async with self._news:
                    self._transactions += 1
                    self._news.notify_all()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), _PAUSE_SECONDS)
