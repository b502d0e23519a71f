"""The Redis sink with a real server that is well, and channels and rights that are not all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from outbox.errors import Permanent, SettingsError, Unavailable, Unsent
from outbox.message import Result, Sent
from outbox.settings import RedisSettings
from outbox.sinks.redis import RedisSink
from tests.support.deliveries import delivery, ids
from tests.support.sinks import is_sent, started
from tests.support.waiting import PATIENCE


def settings_for(url: str, **settings: Any) -> RedisSettings:
    return RedisSettings(url=SecretStr(url), **settings)


@asynccontextmanager
async def subscribed(redis: Redis, *channels: str) -> AsyncIterator[Any]:
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(*channels)
        for _ in channels:
            await pubsub.get_message(timeout=PATIENCE)
        yield pubsub


async def heard(pubsub: Any, count: int) -> list[tuple[str, bytes]]:
    """The next messages, as (channel, data)."""
    messages: list[tuple[str, bytes]] = []
    async with asyncio.timeout(PATIENCE):
        while len(messages) < count:
            if message := await pubsub.get_message(timeout=1.0):
                messages.append((message["channel"].decode(), message["data"]))
    return messages


async def test_subscribers_get_the_exact_bytes_in_order(redis: Redis, redis_url: str) -> None:
    rows = [delivery(f"ws:{n % 2}", f"{n % 2}", payload=bytes([0, 255, 10, 13, n])) for n in range(40)]
    async with subscribed(redis, "ws:0") as pubsub, started(RedisSink(settings_for(redis_url))) as sink:
        results = await sink.send(rows)
        assert results == [Sent(receivers=1 - n % 2) for n in range(40)]
        assert await heard(pubsub, 20) == [("ws:0", row.payload) for row in rows[::2]]
    assert await redis.keys() == []


async def test_nobody_listens(redis_url: str) -> None:
    async with started(RedisSink(settings_for(redis_url))) as sink:
        assert await sink.send([delivery("ws:nobody")]) == [Sent(receivers=0)]
        assert await sink.send([]) == []


async def test_the_log_keeps_what_was_published(redis: Redis, redis_url: str) -> None:
    rows = [delivery("ws:ü", "u", payload=b"\x00%d" % n) for n in range(5)]
    settings = settings_for(redis_url, stream=True, stream_ttl_seconds=90)
    async with started(RedisSink(settings)) as sink:
        assert await is_sent(sink, rows[:3])
        assert await is_sent(sink, rows[3:])
    entries = await redis.xrange("ws:ü:log")
    assert [fields for _, fields in entries or ()] == [
        {b"message_id": message_id.encode(), b"data": row.payload}
        for message_id, row in zip(ids(rows), rows, strict=True)
    ]
    assert 80 < await redis.ttl("ws:ü:log") <= 90


async def test_the_log_is_capped(redis: Redis, redis_url: str) -> None:
    async with started(RedisSink(settings_for(redis_url, stream=True, stream_max_length=10))) as sink:
        assert await is_sent(sink, [delivery("ws:1") for _ in range(1_000)])
    assert 10 <= await redis.xlen("ws:1:log") <= 200


async def test_it_is_in_the_log_before_it_is_published(redis: Redis, redis_url: str) -> None:
    async with started(RedisSink(settings_for(redis_url, stream=True))) as sink, redis.monitor() as monitor:
        await sink.send([delivery("ws:1"), delivery("ws:1"), delivery("ws:2")])
        words: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while not words or words[-1] != "EXEC":
                words.append((await monitor.next_command())["command"].split()[0].upper())
    assert [word for word in words if word in ("MULTI", "XADD", "EXPIRE", "PUBLISH", "EXEC")] == [
        "MULTI",
        *("XADD", "EXPIRE", "PUBLISH"),
        *("XADD", "PUBLISH"),
        *("XADD", "EXPIRE", "PUBLISH"),
        "EXEC",
    ]


async def test_sends_at_once(redis: Redis, redis_url: str) -> None:
    batches = [[delivery("ws:1", str(pump)) for _ in range(100)] for pump in range(8)]
    async with subscribed(redis, "ws:1") as pubsub, started(RedisSink(settings_for(redis_url))) as sink:
        assert all(await asyncio.gather(*(is_sent(sink, rows) for rows in batches)))
        found = [data for _, data in await heard(pubsub, 800)]
    for rows in batches:
        payloads = [row.payload for row in rows]
        assert [data for data in found if data in payloads] == payloads


# Deliveries and channels at fault


async def test_a_tombstone_cannot_be_published(redis: Redis, redis_url: str) -> None:
    rows = [
        delivery("ws:1", "a"),
        delivery("ws:1", "a", payload=None),
        delivery("ws:1", "a"),
        delivery("ws:1", "b"),
    ]
    async with subscribed(redis, "ws:1") as pubsub, started(RedisSink(settings_for(redis_url))) as sink:
        results = await sink.send(rows)
        assert [type(result) for result in results] == [Sent, Permanent, Unsent, Sent]
        assert await heard(pubsub, 2) == [("ws:1", rows[0].payload), ("ws:1", rows[3].payload)]
        assert [type(result) for result in await sink.send(rows[1:3])] == [Permanent, Unsent]


@asynccontextmanager
async def user(redis: Redis, redis_url: str, *rights: str) -> AsyncIterator[str]:
    """The URL for a user who may do only this."""
    execute = cast("Callable[..., Awaitable[object]]", redis.execute_command)
    await execute("ACL", "SETUSER", "relay", "reset", "on", ">pass:word", *rights)
    yield redis_url.replace("redis://", "redis://relay:pass%3Aword@")
    await execute("ACL", "DELUSER", "relay")


LEAST = ("+multi", "+exec", "+ping", "+publish", "&ws:*")
LEAST_FOR_STREAM = (*LEAST, "+xadd", "+expire", "~ws:*:log")


async def test_the_least_rights(redis: Redis, redis_url: str) -> None:
    async with user(redis, redis_url, *LEAST) as url, started(RedisSink(settings_for(url))) as sink:
        assert await is_sent(sink, [delivery("ws:1")])
    settings = partial(settings_for, stream=True)
    async with user(redis, redis_url, *LEAST_FOR_STREAM) as url, started(RedisSink(settings(url))) as sink:
        assert await is_sent(sink, [delivery("ws:1")])


def unavailable(results: Sequence[Result], *, scope: str, uncertain: bool, says: str) -> bool:
    return all(
        isinstance(result, Unavailable)
        and (result.scope, result.uncertain) == (scope, uncertain)
        and says in str(result)
        for result in results
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_forbidden_channel_keeps_back_no_other(redis: Redis, redis_url: str, stream: bool) -> None:
    rows = [delivery("ws:1"), delivery("secret", "k"), delivery("ws:2"), delivery("secret", "k")]
    async with (
        user(redis, redis_url, *LEAST_FOR_STREAM) as url,
        subscribed(redis, "ws:1", "ws:2", "secret") as pubsub,
        started(RedisSink(settings_for(url, stream=stream))) as sink,
    ):
        results = await sink.send(rows)
        assert results[0] == results[2] == Sent(receivers=1)
        refused = [results[1], results[3]]
        assert unavailable(refused, scope="destination", uncertain=False, says="permissions to access")
        assert await heard(pubsub, 2) == [("ws:1", rows[0].payload), ("ws:2", rows[2].payload)]


async def test_a_command_that_is_forbidden(redis: Redis, redis_url: str) -> None:
    async with (
        user(redis, redis_url, *LEAST) as url,
        started(RedisSink(settings_for(url, stream=True))) as sink,
    ):
        results = await sink.send([delivery("ws:1"), delivery("ws:2")])
    assert unavailable(results, scope="sink", uncertain=False, says="'xadd'")


async def test_without_transactions_it_is_uncertain(redis: Redis, redis_url: str) -> None:
    rights = [right for right in LEAST if right != "+multi"]
    async with user(redis, redis_url, *rights) as url, started(RedisSink(settings_for(url))) as sink:
        results = await sink.send([delivery("ws:1"), delivery("ws:2")])
    assert unavailable(results, scope="sink", uncertain=True, says="'multi'")


async def test_something_else_has_the_name_of_a_log(redis: Redis, redis_url: str) -> None:
    await redis.set("ws:1:log", "a string")
    async with (
        subscribed(redis, "ws:1", "ws:2") as pubsub,
        started(RedisSink(settings_for(redis_url, stream=True))) as sink,
    ):
        results = await sink.send([delivery("ws:1"), delivery("ws:2")])
        assert unavailable(results[:1], scope="destination", uncertain=True, says="WRONGTYPE")
        assert results[1] == Sent(receivers=1)
        assert len(await heard(pubsub, 2)) == 2


async def test_a_wrong_password(redis: Redis, redis_url: str) -> None:
    async with user(redis, redis_url, *LEAST) as url:
        sink = RedisSink(settings_for(url.replace("word", "wurd")))
        with pytest.raises(Unavailable, match="AuthenticationError: invalid username-password pair"):
            await sink.start()
        (result,) = await sink.send([delivery("ws:1")])
        assert unavailable([result], scope="sink", uncertain=False, says="AuthenticationError")
        await sink.stop()


# Settings


def test_without_an_address() -> None:
    with pytest.raises(SettingsError, match="OUTBOX_REDIS_URL"):
        RedisSink(RedisSettings())


def test_certificates_for_a_connection_without_tls() -> None:
    with pytest.raises(SettingsError, match="rediss://"):
        RedisSink(settings_for("redis://localhost", ssl_ca_file="ca.pem"))


def test_a_ca_file_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match=r"OUTBOX_REDIS_SSL_CA_FILE=none\.pem: .*No such file"):
        RedisSink(settings_for("rediss://localhost", ssl_ca_file="none.pem"))


def test_a_database_that_is_none() -> None:
    with pytest.raises(SettingsError, match="OUTBOX_REDIS_URL"):
        RedisSink(settings_for("redis://localhost?socket_timeout=soon"))
