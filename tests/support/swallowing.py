"""A way to a server that may swallow what goes over it: connections stay open, and nothing arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Swallowing:
    """A port that leads to a server; what was connected when `swallow` was called hears nothing any more."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self._swallowed: set[asyncio.Event] = set()

    def swallow(self) -> None:
        """Let nothing more through on the connections there are; new ones work."""
        for each in self._swallowed:
            each.set()

    async def connect(
        self, host: str, port: int, near: asyncio.StreamReader, to: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        swallowed = asyncio.Event()
        self._swallowed.add(swallowed)
        far, there = await asyncio.open_connection(host, port)
        try:
            await asyncio.gather(_carry(near, there, swallowed), _carry(far, to, swallowed))
        finally:
            self._swallowed.discard(swallowed)
            there.close()
            to.close()


async def _carry(source: asyncio.StreamReader, to: asyncio.StreamWriter, swallowed: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            if not swallowed.is_set():
                to.write(data)
                await to.drain()
        if not swallowed.is_set():
            to.write_eof()


@asynccontextmanager
async def swallowing(host: str, port: int) -> AsyncIterator[Swallowing]:
    """Such a way, within the block."""
    way = Swallowing()
    tasks: set[asyncio.Task[None]] = set()

    def connected(near: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(way.connect(host, port, near, to)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
