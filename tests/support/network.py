"""A network that lets down who goes through it: it swallows, delays, cuts, closes one half, refuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK = 65_536


class Network:
    """The way to one port of this machine, by a port of its own."""

    port: int

    def __init__(self, to: int) -> None:
        self.to = to
        self.delay = 0.0
        """Seconds that everything takes, one way."""
        self.refuses = False
        """True if connections that come now are cut at once."""
        self._swallows = False
        self._ways: set[_Way] = set()

    def swallow(self, on: bool = True) -> None:
        """Bring nothing on any more. A connection that lost something stays dead: a NAT has forgotten it."""
        self._swallows = on
        if on:
            for way in self._ways:
                way.dead = True

    def cut(self) -> None:
        """Reset every connection."""
        for way in self._ways:
            way.cut()

    def half_close(self) -> None:
        """End every connection for the server alone: what it says afterwards reaches nobody."""
        for way in self._ways:
            way.dead = True
            with contextlib.suppress(OSError):
                way.server.write_eof()

    def heal(self) -> None:
        """Be a network as it should be, for connections that come now."""
        self.delay, self.refuses, self._swallows = 0.0, False, False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be the way of one connection, until it ends."""
        if self.refuses:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.transport.abort()
            return
        way = _Way(writer, back, dead=self._swallows)
        self._ways.add(way)
        try:
            with contextlib.suppress(OSError):
                await asyncio.gather(self._bring(reader, back, way), self._bring(there, writer, way))
        finally:
            self._ways.discard(way)
            way.cut()

    async def _bring(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: _Way) -> None:
        while data := await source.read(_CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            if not way.dead:
                target.write(data)
                await target.drain()
        if not way.dead and target.can_write_eof():
            target.write_eof()


class _Way:
    """One connection through the network."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter, *, dead: bool) -> None:
        self.client, self.server, self.dead = client, server, dead

    def cut(self) -> None:
        for end in (self.client, self.server):
            end.transport.abort()


@asynccontextmanager
async def network(to: int) -> AsyncIterator[Network]:
    """A way to this port, within the block."""
    way = Network(to)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(way.carry(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
