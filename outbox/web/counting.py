"""What the queue holds, counted apart from whoever asks, so that nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from outbox.errors import describe
from outbox.observe import emit
from outbox.operate import SinkStatus, connect, depths
from outbox.settings import Settings

_UNSERVED = "(unserved)"
"""What a metric calls all sinks that no relay ever served: a writer may name as many as it likes."""
_PAUSE_SECONDS = 2.0
_SHARE_OF_TIME = 0.05
_LONGEST_SECONDS = 300.0
"""So long one count may take, and for so long it is counted for whoever asked last."""


class Counting:
    """The last count, and the loop that makes the next ones while somebody asks.

    The longer a count takes, the longer it pauses: it counts for a twentieth of the time at the most.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._depths: Sequence[SinkStatus] | None = None
        self._counted_at = 0.0
        self._asked_at = clock()
        self._asked = asyncio.Event()

    def last(self) -> tuple[Sequence[SinkStatus], float] | None:
        """Returns what was counted last, by sink, and how many seconds ago; asks for the next."""
        self._asked_at = self._clock()
        self._asked.set()
        return None if self._depths is None else (self._depths, self._clock() - self._counted_at)

    async def run(self) -> None:
        """Counts once, and again and again while somebody asks, for ever."""
        while True:
            began = self._clock()
            await self._count()
            await asyncio.sleep(max(_PAUSE_SECONDS, (self._clock() - began) / _SHARE_OF_TIME))
            if self._clock() - self._asked_at > _LONGEST_SECONDS:
                self._asked.clear()
                await self._asked.wait()

    async def _count(self) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(_LONGEST_SECONDS), connect(self._settings) as connection:
                self._depths, self._counted_at = await depths(connection, unserved=_UNSERVED), began
        except TimeoutError:
            emit("count.failed", reason=f"not done within {_LONGEST_SECONDS:g} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, the relay works without numbers
            emit("count.failed", reason=describe(error))
