"""The library's connection, and what it does not offer: limits on what comes in, a sure farewell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame

from outbox.huleedu.gateway.addresses import Addresses
from outbox.huleedu.gateway.closing import INTERNAL, TOO_MUCH, Close
from outbox.huleedu.gateway.newcomers import Newcomers
from outbox.huleedu.gateway.session import SocketSession


class Socket(ServerConnection):
    """A connection that is or becomes a WebSocket, with what belongs to it."""

    admission: SocketSession | Close = INTERNAL
    """Its session once it is open, or why it is closed right then."""
    farewell: Callable[[], None] | None = None
    """Called once when the connection is gone, however that happened."""
    silent = True
    """Whether nothing came in yet."""
    peer = ""
    """The address of who connected, a proxy perhaps."""

    def __init__(self, newcomers: Newcomers, addresses: Addresses, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._newcomers = newcomers
        self._addresses = addresses

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes a place among the newcomers."""
        super().connection_made(transport)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if address else ""
        self._newcomers.add(self, None if self._addresses.trusts(self.peer) else self.peer)

    def process_event(self, event: Any) -> None:
        """Handles what came in, and ends the session of a client that sends more frames than it may."""
        super().process_event(event)
        self.silent = False
        if (
            isinstance(event, Frame)
            and isinstance(self.admission, SocketSession)
            and not self.admission.frames.take(self.loop.time())
        ):
            self.admission.end(TOO_MUCH)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handles the end of the transport: `farewell` is called."""
        super().connection_lost(exc)
        self._newcomers.remove(self)
        if self.farewell:
            self.farewell()

    def cut_off(self) -> None:
        """Ends the connection at once, whatever the client does."""
        self.transport.abort()

    async def shut(self, close: Close) -> None:
        """Closes the socket with a code. Who does not read on in time, or does not answer, is cut off."""
        try:
            async with asyncio.timeout(self.close_timeout):
                await self.close(*close)
        except TimeoutError:
            self.cut_off()
