"""What a consumer does beside consuming: forgets what is old, tries again what a person asks for, counts.

Each chore goes on by itself. One that fails is told and tried again; it keeps nobody from consuming.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from outbox import prune_inbox
from outbox.errors import describe
from outbox.huleedu.consume import parked
from outbox.huleedu.consume.metrics import ConsumerMetrics
from outbox.huleedu.consume.receiver import Receiver
from outbox.huleedu.consume.settings import ConsumerSettings
from outbox.logs import Throttle

_log = structlog.get_logger(__name__)

_PRUNE_SECONDS = 3_600.0
_PRUNE_ROWS = 10_000
_RETRY_SECONDS = 2.0
_COUNT_SECONDS = 15.0
_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to be done again and again."""

    name: str
    every: float
    """Seconds."""
    once: Callable[[AsyncEngine], Awaitable[bool]]
    """Does it; returns True if there is more to do at once."""


Prune = Callable[[AsyncConnection, timedelta, int], Awaitable[int]]
"""Forgets what is older, at most so many rows; returns how many."""


def pruning(name: str, seconds: float, prune: Prune) -> Chore:
    """Makes the chore of forgetting, once an hour, what is older than so many seconds."""

    async def once(engine: AsyncEngine) -> bool:
        async with engine.begin() as connection:
            return await prune(connection, timedelta(seconds=seconds), _PRUNE_ROWS) == _PRUNE_ROWS

    return Chore(name, _PRUNE_SECONDS, once)


def counting(count: Callable[[AsyncConnection], Awaitable[None]]) -> Chore:
    """Makes the chore of counting rows for a gauge."""

    async def once(engine: AsyncEngine) -> bool:
        async with engine.connect() as connection:
            await count(connection)
        return False

    return Chore("count", _COUNT_SECONDS, once)


class Upkeep:
    """The chores of one consumer, those of its service among them."""

    def __init__(
        self,
        settings: ConsumerSettings,
        engine: AsyncEngine,
        receiver: Receiver,
        metrics: ConsumerMetrics,
        chores: Sequence[Chore],
    ) -> None:
        self._engine = engine
        self._receiver = receiver
        self._metrics = metrics
        self._throttle = Throttle()
        consumer = receiver.consumer
        self._chores = (
            pruning(
                "prune the inbox",
                settings.inbox_retention,
                lambda c, age, n: prune_inbox(c, consumer, age, limit=n),
            ),
            pruning(
                "prune parked input",
                settings.parked_retention,
                lambda c, age, n: parked.prune(c, consumer, age, n),
            ),
            Chore("retry parked input", _RETRY_SECONDS, self._retry),
            counting(self._count),
            *chores,
        )

    async def run(self) -> None:
        """Does every chore in its turn, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for chore in self._chores:
                group.create_task(self._keep_doing(chore))

    async def _keep_doing(self, chore: Chore) -> None:
        while True:
            pause = chore.every
            try:
                if await chore.once(self._engine):
                    continue
            except Exception as error:  # noqa: BLE001 (whatever it was, it is told, and tried again)
                pause = min(pause, _AGAIN_SECONDS)
                if self._throttle.passes((chore.name, type(error))):
                    _log.error("upkeep.failed", chore=chore.name, reason=describe(error), pause=pause)
            await asyncio.sleep(pause)

    async def _retry(self, engine: AsyncEngine) -> bool:
        """Tries some of the records again for which a person asks; one that fails waits behind the others."""
        async with engine.connect() as connection:
            wanted = await parked.asked_for(connection, self._receiver.consumer)
        failed: Exception | None = None
        for number, record in wanted:
            try:
                still = await self._receiver.retry(record, partial(parked.remove, number=number))
            except Exception as error:  # noqa: BLE001 (raised below, after the others had their turn)
                failed = error
                async with engine.begin() as connection:
                    await parked.put_off(connection, number)
            else:
                if still:
                    async with engine.begin() as connection:
                        await parked.park_again(connection, number, still)
        if failed:
            raise failed
        return bool(wanted)

    async def _count(self, connection: AsyncConnection) -> None:
        found = await parked.by_kind(connection, self._receiver.consumer)
        for kind in {*self._metrics.parked_kinds, *found}:
            self._metrics.parked.labels(kind).set(found.get(kind, 0))
