"""How much of a process a stranger at its HTTP port may use: so many connections, so large a head, so long.

uvicorn waits for the head of a request as long as it takes, a byte an hour say, and takes as many connections
as there are. Beyond its own limit of concurrency it refuses everybody: probes too.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_BYTES = 16_384
BACKLOG = 128
"""So many connections may be taken before the first of them is looked at."""
_MOST_CONNECTIONS = 400
_HEAD_SECONDS = 5.0
"""From when a connection opens, or its last answer was given, to the head of the next request."""
_REQUEST_SECONDS = 120.0
"""From a request's head to the end of its answer."""


class BoundedProtocol(H11Protocol):
    """A connection that ends in time, and whenever another one needs its place.

    `others` are the connections of the same server, the oldest first. One more than may be there takes the
    place of the oldest that is not being answered, so that who asks at once is always heard.
    """

    def __init__(self, others: MutableMapping[BoundedProtocol, None], **options: Any) -> None:
        super().__init__(**options)
        self._others = others
        self._end: asyncio.TimerHandle | None = None
        self._answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the place of another connection if there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]  # a TCP server makes no other
        if len(self._others) >= _MOST_CONNECTIONS:
            idle = (each for each in self._others if not each._answering)  # noqa: SLF001
            next(idle, next(iter(self._others))).drop()
        self._others[self] = None
        self._end_in(_HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Takes what came; the time for a head does not begin anew by that."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Waits for the head of the next request, and for what is left of this one."""
        self._answering = False
        self._end_in(_HEAD_SECONDS)
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives its place back."""
        self._forget()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Closes the connection at once."""
        self._forget()
        self.transport.abort()

    def _look(self) -> None:
        """Takes note of a request whose head is complete."""
        if not self._answering and self.cycle is not None and not self.cycle.response_complete:
            self._answering = True
            self._end_in(_REQUEST_SECONDS)

    def _end_in(self, seconds: float) -> None:
        if self._end is not None:
            self._end.cancel()
        if self in self._others:
            self._end = self.loop.call_later(seconds, self.drop)

    def _forget(self) -> None:
        self._others.pop(self, None)
        if self._end is not None:
            self._end.cancel()
