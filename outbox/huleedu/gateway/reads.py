"""What is read from Redis for one socket: over a few connections, in the order in which it was asked for.

When ten thousand browsers come back at once each waits for its turn. redis-py's own pool that blocks gives a
connection to who comes first when one is free, so that some would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from outbox.redis_server import RedisServer

_CONNECTIONS = 8
_STOP_SECONDS = 1.0
_TROUBLE = (RedisError, OSError, TimeoutError)


class Reads:
    """Lets a few read at a time, and each for `timeout` seconds at most."""

    def __init__(self, server: RedisServer, timeout: float) -> None:
        self._redis = Redis.from_pool(server.pool(client_name="websocket-gateway-missed"))
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._timeout = timeout

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Redis]:
        """Waits for a turn to use Redis within the block. Raises TimeoutError if the block takes too long."""
        async with self._turns, asyncio.timeout(self._timeout):
            yield self._redis

    async def forget(self) -> None:
        """Disconnects: what is connected may go on well with what is the master no more."""
        with suppress(*_TROUBLE):
            await self._redis.connection_pool.disconnect()

    async def close(self) -> None:
        """Disconnects for good, within a second whatever Redis does."""
        with suppress(*_TROUBLE):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._redis.aclose()
