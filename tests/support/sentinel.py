"""Redis with Sentinels: a master, a replica, and three that watch them and agree on a failover."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from redis.asyncio import Redis

from outbox.devstack import Valkey
from outbox.devstack.server import HOST
from tests.support import servers
from tests.support.waiting import until

NAME = "notices"
"""What the Sentinels call the master."""
_DOWN_AFTER_MS = 500


class Replica(Valkey):
    """A server that follows another until it is told otherwise."""

    def __init__(self, master: Valkey) -> None:
        super().__init__()
        self._master = master

    def command(self) -> list[str]:
        return [*super().command(), "--replicaof", f"{HOST} {self._master.port}"]


class Sentinel(Valkey):
    """One that watches."""

    name = "sentinel"

    def __init__(self, master: Valkey) -> None:
        super().__init__()
        self._master = master

    async def prepare(self) -> None:
        lines = (
            f"bind {HOST}",
            f"port {self.port}",
            f"dir {self.home}",
            f"sentinel monitor {NAME} {HOST} {self._master.port} 2",
            f"sentinel down-after-milliseconds {NAME} {_DOWN_AFTER_MS}",
            f"sentinel failover-timeout {NAME} 3000",
        )
        (self.home / "sentinel.conf").write_text("\n".join(lines))

    def command(self) -> list[str]:
        return [super().command()[0], str(self.home / "sentinel.conf"), "--sentinel"]


class Watched:
    """Two servers, the one that was master first, and the Sentinels."""

    def __init__(self, first: Valkey, second: Valkey, sentinels: list[Sentinel]) -> None:
        self.first = first
        self.second = second
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}"

    async def fail_over(self) -> None:
        """Make the other server the master, though this one is well."""
        async with Redis(host=HOST, port=self.sentinels[0].port) as redis:
            await redis.execute_command("SENTINEL", "FAILOVER", NAME)
        await self.until_second_leads()

    async def until_second_leads(self) -> None:
        """Return once the other server is the master, and knows it."""

        async def leads() -> bool:
            async with Redis.from_url(self.second.url) as redis:
                return bool((await redis.info("replication"))["role"] == "master")

        await until(leads)


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    """Servers of the test's own, once the Sentinels know the replica and each other."""
    async with AsyncExitStack() as stack:
        first = await servers.start(stack, Valkey)
        second = await servers.start(stack, lambda: Replica(first))
        sentinels = [await servers.start(stack, lambda: Sentinel(first)) for _ in range(3)]
        for sentinel in sentinels:
            async with Redis(host=HOST, port=sentinel.port) as redis:

                async def knows_all(redis: Redis = redis) -> bool:
                    said = cast("Any", await redis.sentinel_masters())[NAME]
                    return bool(said["num-slaves"] == 1 and said["num-other-sentinels"] == 2)

                await until(knows_all)
        yield Watched(first, second, sentinels)
