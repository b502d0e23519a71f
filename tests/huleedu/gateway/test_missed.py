"""What a reconnect brings: everything that was missed, once."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import SecretStr
from redis.asyncio import Redis

from outbox.devstack import Valkey
from outbox.huleedu.gateway import Gateway
from outbox.settings import RedisSettings
from outbox.sinks.redis import RedisSink
from tests.huleedu.conftest import StartGateway
from tests.support.deliveries import delivery
from tests.support.gateway import NOT_RECOVERED, client, numbers, publish, receive, recovered, token, until


async def test_what_was_missed_comes_once(gateway: Gateway, redis: Redis) -> None:
    async with client(gateway, token()) as socket:
        for number in range(3):
            await publish(redis, "alice", number)
        seen = [await receive(socket) for _ in range(3)]
    for number in range(3, 200):
        await publish(redis, "alice", number)
    async with client(gateway, token(), last_message_id=seen[-1]["message_id"]) as socket:
        await publish(redis, "alice", 200)
        assert await recovered(socket) == 197
        assert await numbers(socket, 198) == list(range(3, 201))


async def test_what_the_outbox_writes_is_what_the_gateway_reads(gateway: Gateway, redis_url: str) -> None:
    sink = RedisSink(RedisSettings(url=SecretStr(redis_url), stream=True))
    await sink.start()
    sent = [delivery("ws:alice", "alice", payload=b'{"n": %d}' % number) for number in range(3)]
    async with client(gateway, token()) as socket:
        await sink.send(sent)
        assert await numbers(socket, 3) == [0, 1, 2]
    async with client(gateway, token(), last_message_id=str(sent[0].message_id)) as socket:
        assert await recovered(socket) == 2
        assert await numbers(socket, 2) == [1, 2]
    await sink.stop()


async def test_nothing_missed_brings_nothing(gateway: Gateway, redis: Redis) -> None:
    last = await publish(redis, "alice", 1)
    async with client(gateway, token(), last_message_id=last) as socket:
        await publish(redis, "alice", 2)
        assert await recovered(socket) == 0
        assert await numbers(socket, 1) == [2]


async def test_an_id_that_is_not_in_the_log_means_resync(gateway: Gateway, redis: Redis) -> None:
    await publish(redis, "alice", 1)
    foreign = await publish(redis, "bob", 2)
    for last in (foreign, "anything", "%00", "x" * 1_000, ""):
        async with client(gateway, token(), last_message_id=last) as socket:
            await redis.publish("ws:alice", '{"message_id": ["no text"]}')
            assert await receive(socket) == NOT_RECOVERED
            assert await receive(socket) == {"message_id": ["no text"]}
            await publish(redis, "alice", 3)
            assert await numbers(socket, 1) == [3]


async def test_an_empty_log_means_resync(gateway: Gateway) -> None:
    async with client(gateway, token(), last_message_id="anything") as socket:
        assert await receive(socket) == NOT_RECOVERED


async def test_a_log_that_somebody_spoilt_means_resync(gateway: Gateway, redis: Redis) -> None:
    last = await publish(redis, "alice", 1)
    await redis.xadd("ws:alice:log", {"foreign": "entry"})
    async with client(gateway, token(), last_message_id=last) as socket:
        assert await receive(socket) == NOT_RECOVERED


async def test_what_the_sink_repeated_comes_once(gateway: Gateway, redis: Redis) -> None:
    ids = [await publish(redis, "alice", number) for number in range(3)]
    entries: Any = await redis.xrange("ws:alice:log")
    for _, fields in entries:
        await redis.xadd("ws:alice:log", fields)
    async with client(gateway, token(), last_message_id=ids[0]) as socket:
        await publish(redis, "alice", 3)
        assert await recovered(socket) in (2, 3)
        assert await numbers(socket, 3) == [1, 2, 3]


async def append(redis: Redis, *entries: tuple[bytes, dict[bytes, bytes]]) -> None:
    for _, fields in entries:
        await redis.xadd("ws:alice:log", fields)  # type: ignore[arg-type]  # its stub wants a dict of unions, which no dict of bytes is


async def test_a_repeated_tail_hides_nothing(gateway: Gateway, redis: Redis) -> None:
    ids = [await publish(redis, "alice", number) for number in range(4)]
    entries: Any = await redis.xrange("ws:alice:log")
    await append(redis, *entries[:2])  # by a relay that was taken over from, say
    for last, missed in ((0, [1, 2, 3]), (1, [2, 3]), (3, [])):
        async with client(gateway, token(), last_message_id=ids[last]) as socket:
            assert await recovered(socket) == len(missed)
            assert await numbers(socket, len(missed)) == missed
            await publish(redis, "bob")


async def test_a_repeat_whose_first_copy_was_trimmed_is_no_place_to_go_on_from(
    gateway: Gateway, redis: Redis
) -> None:
    ids = [await publish(redis, "alice", number) for number in range(3)]
    entries: Any = await redis.xrange("ws:alice:log")
    await append(redis, entries[0])
    await redis.xtrim("ws:alice:log", maxlen=2, approximate=False)
    async with client(gateway, token(), last_message_id=ids[0]) as socket:
        assert await receive(socket) == NOT_RECOVERED


async def test_ids_that_do_not_rise_are_no_reason_to_resync(gateway: Gateway, redis: Redis) -> None:
    for name in ("ffffffff-ffff-4fff-bfff-ffffffffffff", "00000000-0000-4000-8000-000000000000"):
        await redis.xadd("ws:alice:log", {"message_id": name, "data": "{}"})
    last = await publish(redis, "alice", 1)
    for name in (last, "00000000-0000-4000-8000-000000000000"):
        async with client(gateway, token(), last_message_id=name) as socket:
            assert await recovered(socket) == (name != last)


async def test_a_log_of_another_history_than_the_cursor_means_resync(
    start_gateway: StartGateway, own_redis: Valkey
) -> None:
    gateway = await start_gateway(
        redis_url=own_redis.url, redis_grace_seconds=60, redis_clock_leeway_seconds=0
    )
    async with Redis.from_url(own_redis.url) as redis:
        before = await publish(redis, "alice", 1)
        async with client(gateway, token(), last_message_id=before) as socket:
            assert await recovered(socket) == 0
    await own_redis.start()  # What came after the cursor may be lost, as by a failover.
    await until(lambda: gateway.ready)
    async with Redis.from_url(own_redis.url) as redis:
        async with client(gateway, token(), last_message_id=before) as socket:
            assert await receive(socket) == NOT_RECOVERED
        after = await publish(redis, "alice", 2)
        await publish(redis, "alice", 3)
        async with client(gateway, token(), last_message_id=after) as socket:
            assert await recovered(socket) == 1
            assert await numbers(socket, 1) == [3]


async def test_a_heartbeat_breaks_the_silence_for_who_asked(gateway: Gateway, redis: Redis) -> None:
    async with client(gateway, token(), heartbeat=0.1) as asked, client(gateway, token()) as other:
        assert [await receive(asked) for _ in range(2)] == [{"event": "heartbeat"}] * 2
        await publish(redis, "alice", 1)
        assert await numbers(asked, 1) == await numbers(other, 1) == [1]


async def test_a_heartbeat_that_is_no_number_is_none(gateway: Gateway, redis: Redis) -> None:
    # With NaN each timer is due at once: the socket got one heartbeat after the other.
    async with client(gateway, token(), heartbeat=float("nan")) as socket:
        await (await socket.ping())
        await publish(redis, "alice", 1)
        assert await numbers(socket, 1) == [1]


async def test_reconnecting_under_load_loses_and_repeats_nothing(gateway: Gateway, redis: Redis) -> None:
    total = 1_000

    async def write() -> None:
        for number in range(total):
            await publish(redis, "alice", number)

    async with client(gateway, token()) as socket:
        await publish(redis, "alice", -1)
        last = await receive(socket)
    seen: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        while len(seen) < total:
            async with client(gateway, token(), last_message_id=last["message_id"]) as socket:
                await recovered(socket)
                for _ in range(min(25, total - len(seen))):
                    last = await receive(socket)
                    assert "n" in last, last
                    seen.append(last["n"])
    assert seen == list(range(total))
