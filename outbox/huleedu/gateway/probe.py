"""Whether what is published reaches this gateway: found out by publishing to oneself, the whole way.

A master that lost its role, or a network that was divided, lets a subscription live and tells it nothing:
PING is answered all the same. So each probe goes a way of its own: a new connection to the master of now.
"""

from __future__ import annotations

from secrets import token_hex

import structlog
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError, ResponseError

from outbox.huleedu.gateway.history import note_history
from outbox.redis_server import NO_CLUSTER, RedisServer, is_cluster


class ClusterRefused(Exception):
    """Redis is a Cluster, and cannot be used as one."""

    def __init__(self) -> None:
        super().__init__(NO_CLUSTER)


class Probe:
    """Publishes to `channel`, which is this process's own."""

    def __init__(self, server: RedisServer, leeway: float) -> None:
        self.channel = f"gateway:{token_hex(8)}"
        self._server = server
        self._leeway = leeway

    async def publish(self, text: str) -> None:
        """Publishes on the channel, by a new connection to the master.

        Raises `ClusterRefused`, and RedisError or OSError where no master can be reached.
        """
        async with Redis.from_pool(self._server.pool()) as redis:
            try:
                hello = await redis.execute_command("HELLO")  # type: ignore[no-untyped-call]
                if is_cluster(hello):
                    raise ClusterRefused
            except ResponseError as error:
                structlog.get_logger(__name__).debug("redis.no_hello", reason=str(error))
            if (await redis.role())[0] not in (b"master", "master"):
                raise ReadOnlyError("it is no master")
            await note_history(redis, self._leeway)
            await redis.publish(self.channel, text)
