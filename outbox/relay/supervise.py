"""Keeps a loop of a relay running: one that fails pauses, for longer each time, and nobody else feels it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from outbox.errors import describe
from outbox.policy import Backoff
from outbox.relay.store import ConnectionLost
from outbox.relay.waiting import is_cancelled, wait_for

_PAUSE = Backoff(first=0.5, longest=30.0)


@dataclass(slots=True)
class Trouble:
    """What is wrong with a loop since it last did its work."""

    failures: int = 0
    since: float = 0.0
    """Monotonic time of the first failure."""
    reason: str = ""
    """Of the last failure; empty while all is well."""
    connected: bool = False
    """Whether it had its connection to the database."""

    def begin(self, reason: str) -> float:
        """Takes note of a failure; returns for how many seconds to pause."""
        if not self.failures:
            self.since = monotonic()
        self.failures += 1
        self.reason = reason
        return _PAUSE.ceiling(self.failures)

    @property
    def unconnected_seconds(self) -> float:
        """For how long it has been failing for want of a connection."""
        return monotonic() - self.since if self.failures and not self.connected else 0.0

    def end(self) -> None:
        """Takes note that the loop does its work."""
        self.failures, self.reason = 0, ""


async def keep_running(
    life: Callable[[], Awaitable[None]],
    ending: asyncio.Event,
    trouble: Trouble,
    tell: Callable[[str, float], None],
) -> None:
    """Runs a loop until `ending`, again after each failure, of whose reason and pause it tells.

    Raises `ConnectionLost`: that ends the session for all loops.
    """
    while not ending.is_set():
        reason = "it ended by itself"
        try:
            await life()
        except ConnectionLost:
            raise
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            reason = describe(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other loops go on
            reason = describe(error)
        if not ending.is_set():
            pause = trouble.begin(reason)
            tell(reason, pause)
            await wait_for(ending, pause)
