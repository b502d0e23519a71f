"""Whether what is published reaches this gateway: found out by publishing to oneself, the whole way.

A master that lost its role, or a network that was divided, lets a subscription live and tells it nothing:
PING is answered all the same. So each probe goes a way of its own: a new connection to the master of now.
"""

from __future__ import annotations

from contextlib import suppress
from secrets import token_hex

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from outbox.huleedu.gateway.history import note_history
from outbox.redis_server import RedisServer, unfit


class Unfit(Exception):
    """It is a Redis that cannot be used."""


class Probe:
    """Publishes to `channel`, which is this process's own."""

    def __init__(self, server: RedisServer, leeway: float) -> None:
        self.channel = f"gateway:{token_hex(8)}"
        self.replication: str | None = None
        """The replication id of the master that was reached last."""
        self._server = server
        self._leeway = leeway

    async def publish(self, text: str) -> None:
        """Publishes on the channel, by a new connection to the master.

        Raises `Unfit`, and RedisError or OSError where no master can be reached.
        """
        async with Redis.from_pool(self._server.pool()) as redis:
            with suppress(ResponseError):  # Servers before 6.0 know no HELLO.
                if reason := unfit(await redis.execute_command("HELLO")):
                    raise Unfit(reason)
            self.replication = await note_history(redis, self._leeway)
            await redis.publish(self.channel, text)
