"""The library's connection, and what it does not offer: limits on what comes in, a sure farewell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame

from outbox.huleedu.gateway.closing import INTERNAL, TOO_MUCH, Close
from outbox.huleedu.gateway.session import SocketSession

_MOST_SILENT = 400


class Socket(ServerConnection):
    """A connection that is or becomes a WebSocket, with what belongs to it.

    `silent` are the connections of the same server on which no request came yet, the oldest first. One more
    than may be there takes the place of the oldest: who asks at once is always heard.
    """

    admission: SocketSession | Close = INTERNAL
    """Its session once it is open, or why it is closed right then."""
    farewell: Callable[[], None] | None = None
    """Called once when the connection is gone, however that happened."""

    def __init__(self, silent: MutableMapping[Socket, None], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._silent = silent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the place of another connection if there are too many silent ones."""
        super().connection_made(transport)
        if len(self._silent) >= _MOST_SILENT:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.transport.abort()
        self._silent[self] = None

    def process_event(self, event: Any) -> None:
        """Handles what came in, and ends the session of a client that sends more frames than it may."""
        super().process_event(event)
        self._silent.pop(self, None)
        if (
            isinstance(event, Frame)
            and isinstance(self.admission, SocketSession)
            and not self.admission.frames.take(self.loop.time())
        ):
            self.admission.end(TOO_MUCH)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handles the end of the transport: `farewell` is called."""
        super().connection_lost(exc)
        self._silent.pop(self, None)
        if self.farewell:
            self.farewell()

    async def shut(self, close: Close) -> None:
        """Closes the socket with a code. Who does not read on in time, or does not answer, is cut off."""
        try:
            async with asyncio.timeout(self.close_timeout):
                await self.close(*close)
        except TimeoutError:
            self.transport.abort()
