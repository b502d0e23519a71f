"""The library's connection, and what it does not offer: a limit on what comes in, a sure farewell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame

from outbox.huleedu.gateway.closing import INTERNAL, TOO_MUCH, Close
from outbox.huleedu.gateway.session import SocketSession


class Socket(ServerConnection):
    """A connection that is or becomes a WebSocket, with what belongs to it."""

    admission: SocketSession | Close = INTERNAL
    """Its session once it is open, or why it is closed right then."""
    farewell: Callable[[], None] | None = None
    """Called once when the connection is gone, however that happened."""

    def process_event(self, event: Any) -> None:
        """Handles what came in, and ends the session of a client that sends more frames than it may."""
        super().process_event(event)
        if (
            isinstance(event, Frame)
            and isinstance(self.admission, SocketSession)
            and not self.admission.frames.take(self.loop.time())
        ):
            self.admission.end(TOO_MUCH)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handles the end of the transport: `farewell` is called."""
        super().connection_lost(exc)
        if self.farewell:
            self.farewell()

    async def shut(self, close: Close) -> None:
        """Closes the socket with a code. Who does not read on in time, or does not answer, is cut off."""
        try:
            async with asyncio.timeout(self.close_timeout):
                await self.close(*close)
        except TimeoutError:
            self.transport.abort()
