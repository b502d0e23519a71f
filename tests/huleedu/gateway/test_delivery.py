"""Who hears what."""

from __future__ import annotations

from redis.asyncio import Redis

from outbox.huleedu.gateway import Gateway
from tests.huleedu.conftest import StartGateway
from tests.support.gateway import (
    UNLIMITED,
    client,
    numbers,
    publish,
    receive,
    sessions,
    subscribers,
    token,
    until,
)


async def test_a_message_arrives_as_it_was_published(gateway: Gateway, redis: Redis) -> None:
    text = ' {"event": "anything", "name": "Åsa \N{WRITING HAND}",  "n": 1.0 }\n'
    async with client(gateway, token()) as socket:
        await redis.publish("ws:alice", text)
        assert await socket.recv() == text
        await redis.publish("ws:alice", "no JSON at all")
        assert await socket.recv() == "no JSON at all"


async def test_nobody_hears_what_is_for_another(gateway: Gateway, redis: Redis) -> None:
    async with client(gateway, token("alice")) as alice, client(gateway, token("bob")) as bob:
        for number in range(20):
            await publish(redis, ("alice", "bob")[number % 2], number)
        await publish(redis, "ALICE", 100)
        await publish(redis, "alice:log", 101)
        await publish(redis, "*", 102)
        await publish(redis, "alice", 20)
        await publish(redis, "bob", 21)
        assert await numbers(alice, 11) == [*range(0, 20, 2), 20]
        assert await numbers(bob, 11) == [*range(1, 20, 2), 21]


async def test_a_user_named_as_a_pattern_hears_only_its_own(gateway: Gateway, redis: Redis) -> None:
    async with client(gateway, token("*")) as star:
        await publish(redis, "alice", 1)
        await publish(redis, "*", 2)
        assert (await receive(star))["n"] == 2


async def test_a_user_has_one_subscription_however_many_sockets(gateway: Gateway, redis: Redis) -> None:
    async with client(gateway, token()) as first:
        async with client(gateway, token()) as second, client(gateway, token()) as third:
            assert await subscribers(redis, "alice") == 1
            await publish(redis, "alice", 1)
            assert [(await receive(socket))["n"] for socket in (first, second, third)] == [1, 1, 1]
        await until(lambda: len(sessions(gateway)) == 1)
        await publish(redis, "alice", 2)
        assert (await receive(first))["n"] == 2
        assert await subscribers(redis, "alice") == 1
    await until(lambda: not sessions(gateway))
    async with client(gateway, token("bob")):  # A fence: what was asked for before is done.
        assert await subscribers(redis, "alice") == 0


async def test_what_is_published_once_the_socket_is_open_arrives(gateway: Gateway, redis: Redis) -> None:
    for number in range(50):
        async with client(gateway, token()) as socket:
            await publish(redis, "alice", number, log=False)
            assert (await receive(socket))["n"] == number


async def test_a_burst_does_not_make_readers_look_slow(start_gateway: StartGateway, redis: Redis) -> None:
    gateway = await start_gateway(**UNLIMITED, queue_messages=4)
    async with client(gateway, token("alice")) as alice:
        async with redis.pipeline(transaction=False) as pipe:
            for number in range(200):
                pipe.publish("ws:alice", f'{{"n": {number}}}')
            await pipe.execute()
        assert await numbers(alice, 200) == list(range(200))


async def test_a_message_that_is_no_text_becomes_a_resync(gateway: Gateway, redis: Redis) -> None:
    async with client(gateway, token()) as socket:
        await redis.publish("ws:alice", b"\xff\xfe")
        assert await receive(socket) == {"event": "resync_required"}
        await publish(redis, "alice", 1)
        assert (await receive(socket))["n"] == 1
