"""What a Redis' check says of its role, rights, memory and clock; each fault is planted on a real server."""

from __future__ import annotations

import time
from typing import Any

from redis.asyncio import Redis

from outbox.devstack import Valkey
from outbox.redis_server import NO_MASTER
from outbox.settings import RedisSettings, Settings
from outbox.sinks.checking import Use, check
from outbox.sinks.redis import RedisSink
from tests.support.sinks import started


async def found(url: str, *channels: str, clock: Any = time.time, **settings: Any) -> list[str]:
    async with started(RedisSink(RedisSettings.model_validate({"url": url, **settings}))) as sink:
        told = await sink.check(Use(destinations=channels, clock=clock))
    return [f"{each.severity}: {each.sentence} → {each.remedy}" for each in told]


async def test_it_is_silent_and_sends_nothing(redis: Redis, redis_url: str) -> None:
    async with redis.pubsub() as listener:
        await listener.subscribe("ws:ada")
        assert (await listener.get_message(timeout=5.0) or {})["type"] == "subscribe"
        assert await found(redis_url, "ws:ada", stream=True) == []
        await redis.publish("ws:ada", "after")
        assert (await listener.get_message(timeout=5.0) or {})["data"] == b"after"
    assert await redis.keys() == []


async def test_rights_that_are_missing_are_told(own_redis: Valkey) -> None:
    url = own_redis.url.replace("redis://", "redis://relay:opensesame@")
    async with Redis.from_url(own_redis.url) as admin:
        rights = "on >opensesame +hello +ping +multi +exec +publish &ws:*"
        await admin.execute_command("ACL", "SETUSER", "relay", *rights.split())
        told = await found(url, "ws:ada", "other", "more", stream=True)
        remedy = (
            "give its user the rights: ACL SETUSER … +multi +exec +ping +publish '&<channel>'; for the "
            "stream also "
            "+xadd +expire '~<channel>:log'"
        )
        assert [line.partition(" → ")[0] for line in told[:3]] == [
            "error: Redis refuses what would be sent to ws:ada: NoPermissionError: User relay has no "
            "permissions to "
            "run the 'xadd' command.",
            "error: Redis refuses what would be sent to ws:ada: NoPermissionError: User relay has no "
            "permissions to "
            "run the 'expire' command.",
            "error: Redis refuses what would be sent to other: NoPermissionError: No permissions to access "
            "a channel.",
        ]
        assert {line.partition(" → ")[2] for line in told[:3]} == {remedy}
        assert [line.partition(":")[0] for line in told[3:]] == ["unknown"]
        await admin.execute_command("ACL", "SETUSER", "relay", "-multi")
        told = await found(url, "ws:ada")
    assert told[0].startswith("error: Redis refuses to begin a transaction: ")
    assert "opensesame" not in "".join(told)


async def test_memory_that_is_full_or_thrown_out_is_told(own_redis: Valkey) -> None:
    async with Redis.from_url(own_redis.url) as admin:
        used = (await admin.info("memory"))["used_memory"]
        await admin.config_set("maxmemory", used)
        (told,) = await found(own_redis.url)
        assert told.startswith("warning: Redis uses 1")
        assert "% of its maxmemory, and refuses writes when it is full." in told
        (told,) = [line for line in await found(own_redis.url, "ws:ada", stream=True) if "error" in line]
        assert "OOM" in told or "OutOfMemory" in told
        await admin.config_set("maxmemory-policy", "allkeys-lru")
        (told,) = [line for line in await found(own_redis.url, stream=True) if line.startswith("warning")]
    assert told == (
        "warning: maxmemory-policy is allkeys-lru: channels' logs may be thrown out, and who reconnects has "
        "a gap. → "
        "CONFIG SET maxmemory-policy noeviction; or a Redis of its own"
    )


async def test_a_clock_that_is_wrong_is_told(redis_url: str) -> None:
    (told,) = await found(redis_url, clock=lambda: time.time() + 90)
    assert told.startswith("warning: This host's clock is 9")
    assert " ahead of that of Redis. → " in told


async def test_a_replica_is_told(own_redis: Valkey) -> None:
    async with Redis.from_url(own_redis.url) as admin:
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    settings = Settings.model_validate({"redis": {"url": own_redis.url}})
    (told,) = await check("redis", settings, ["ws:ada"])
    assert told.severity == "error"
    assert told.sentence == f"It cannot be reached: {NO_MASTER}."
