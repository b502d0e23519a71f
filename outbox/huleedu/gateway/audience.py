"""One user's sockets in this process, and how much of the user's messages reaches them."""

from __future__ import annotations

import asyncio
from typing import Protocol

from outbox.huleedu.gateway import metrics
from outbox.huleedu.gateway.closing import Close
from outbox.huleedu.gateway.limits import TokenBucket

RESYNC_REQUIRED = '{"event":"resync_required"}'
"""Tells a client that it may have missed something and must load the state."""


class Listener(Protocol):
    """What an audience needs of a socket."""

    def offer(self, text: str) -> None:
        """Sends this text when it can be sent."""

    def end(self, close: Close) -> None:
        """Closes the socket, for this reason."""


class Audience:
    """Passes a user's messages on to each listener, as they are, up to a rate.

    Above it, everything in the next `pause` seconds is folded into one `resync_required` at their
    end: whoever then loads the state has what was left out.
    """

    def __init__(self, bucket: TokenBucket, pause: float) -> None:
        self.listeners: set[Listener] = set()
        self._bucket = bucket
        self._pause = pause
        self._folding = False
        self._owed: asyncio.TimerHandle | None = None

    def hear(self, text: str) -> None:
        """Passes a message on to the listeners, or folds it."""
        if not self._folding and self._bucket.take(asyncio.get_running_loop().time()):
            self._tell(text)
        else:
            self.fold()

    def fold(self) -> None:
        """Leaves out a message, and what comes until the listeners are told so."""
        metrics.FOLDED.inc()
        self._folding = True
        self.owe_resync(self._pause, "rate")

    def owe_resync(self, delay: float, cause: str) -> None:
        """Tells the listeners after `delay` seconds that they may have missed something."""
        if self._owed is None:
            self._owed = asyncio.get_running_loop().call_later(delay, self._resync, cause)

    def close(self) -> None:
        """Takes note that nobody listens any more: what the listeners were still to be told is dropped."""
        if self._owed is not None:
            self._owed.cancel()

    def _resync(self, cause: str) -> None:
        self._owed = None
        self._folding = False
        metrics.RESYNCS.labels(cause).inc(len(self.listeners))
        self._tell(RESYNC_REQUIRED)

    def _tell(self, text: str) -> None:
        for listener in self.listeners:
            listener.offer(text)
