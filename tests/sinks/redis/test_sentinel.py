"""The Redis sink where the master may be another by now, and where there are many."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from outbox.devstack import Valkey
from outbox.errors import SettingsError, Unavailable
from outbox.settings import RedisSettings
from outbox.sinks.redis import RedisSink
from tests.support import servers
from tests.support.deliveries import delivery
from tests.support.sentinel import watched
from tests.support.sinks import is_sent, started
from tests.support.waiting import until


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "no stream"])
async def test_a_master_that_has_become_a_replica_is_left(own_redis: Valkey, stream: bool) -> None:
    """Without a stream it would take every PUBLISH, and tell nobody."""
    settings = RedisSettings(url=SecretStr(own_redis.url), stream=stream)
    async with started(RedisSink(settings)) as sink, Redis.from_url(own_redis.url) as redis:
        assert await is_sent(sink, [delivery("ws:1")])
        await redis.replicaof("127.0.0.1", "1")
        [result] = await sink.send([delivery("ws:1")])
        assert isinstance(result, Unavailable)
        assert ("ReadOnlyError" if stream else "it is a replica") in str(result)
        with pytest.raises(Unavailable, match="it is a replica"):
            await sink.start()
        await redis.replicaof("NO", "ONE")
        assert await is_sent(sink, [delivery("ws:1")])


class Cluster(Valkey):
    """A server that is a node of a cluster."""

    def command(self) -> list[str]:
        return [*super().command(), "--cluster-enabled", "yes"]


async def test_a_cluster_is_refused_with_a_sentence() -> None:
    async with AsyncExitStack() as stack:
        node = await servers.start(stack, Cluster)
        sink = RedisSink(RedisSettings(url=SecretStr(node.url), stream=True))
        with pytest.raises(
            Unavailable, match="a Redis Cluster, in which a channel and its log lie in two slots"
        ):
            await sink.start()
        await sink.stop()


async def test_a_failover_by_sentinels_is_followed() -> None:
    async with watched() as redis:
        settings = RedisSettings(url=SecretStr(redis.url), stream=True)
        async with started(RedisSink(settings, timeout=1.0)) as sink:
            assert await is_sent(sink, [delivery("ws:1")])
            redis.first.pause()  # It does not even refuse a connection.

            async def goes_on() -> bool:
                return await is_sent(sink, [delivery("ws:1")])

            await until(goes_on)
            redis.first.resume()  # It thinks that it is the master, until the Sentinels tell it.
            last = delivery("ws:1")
            assert await is_sent(sink, [last])
            async with Redis.from_url(redis.second.url) as second:
                entries: Any = await second.xrevrange("ws:1:log", count=1)
            assert entries[0][1][b"message_id"].decode() == str(last.message_id)


async def test_a_master_that_still_answers_is_left_once_the_sentinels_name_another() -> None:
    async with watched() as redis, started(RedisSink(RedisSettings(url=SecretStr(redis.url)))) as sink:
        assert await is_sent(sink, [delivery("ws:1")])
        await redis.fail_over()

        async def heard_by_the_new_master() -> bool:
            async with Redis.from_url(redis.second.url) as second, second.pubsub() as listening:
                await listening.subscribe("ws:1")
                await listening.get_message(timeout=1.0)
                sent = await is_sent(sink, [delivery("ws:1")])
                return sent and await listening.get_message(timeout=1.0) is not None

        await until(heard_by_the_new_master)


async def test_without_a_sentinel_that_answers_it_says_so() -> None:
    sink = RedisSink(RedisSettings(url=SecretStr("redis+sentinel://127.0.0.1:1,127.0.0.1:2/notices")))
    with pytest.raises(
        Unavailable, match=r"no Sentinel tells where notices is: 127\.0\.0\.1:1: ConnectionError"
    ):
        await sink.start()
    await sink.stop()


@pytest.mark.parametrize(
    "url", ["redis+sentinel://host", "redis+sentinel:///notices", "redis+sentinel://:1/notices"]
)
def test_a_url_of_sentinels_that_lacks_something_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="OUTBOX_REDIS_URL"):
        RedisSink(RedisSettings(url=SecretStr(url)))
