"""What is allowed, and what happens beyond it."""

from __future__ import annotations

import asyncio
import socket as sockets
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from outbox.huleedu.gateway import Gateway
from outbox.huleedu.gateway.limits import TokenBucket
from tests.huleedu.conftest import StartGateway
from tests.support.gateway import (
    RESYNC,
    UNLIMITED,
    client,
    closed,
    closing,
    numbers,
    publish,
    receive,
    sessions,
    token,
    until,
)
from tests.support.waiting import BOUNDED, PATIENCE


@given(rate=st.floats(0.1, 1_000), burst=st.integers(1, 100), waits=st.lists(st.floats(0, 10), min_size=1))
def test_a_bucket_never_gives_more_than_burst_and_rate(rate: float, burst: int, waits: list[float]) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now, given = 0.0, 0
    for wait in waits:
        now += wait
        given += bucket.take(now)
        assert given <= burst + rate * now + 1e-6


async def test_the_sixth_socket_of_a_user_is_closed_with_4429(gateway: Gateway, redis: Redis) -> None:
    async with AsyncExitStack() as stack:
        open_sockets = [await stack.enter_async_context(client(gateway, token())) for _ in range(5)]
        async with client(gateway, token()) as sixth:
            assert await closing(sixth) == (4429, "too many connections")
        async with client(gateway, token("bob")) as other:
            await publish(redis, "bob", 1)
            assert await numbers(other, 1) == [1]
        await open_sockets[0].close()
        await until(lambda: len(sessions(gateway)) == 4)
        async with client(gateway, token()) as again:
            await publish(redis, "alice", 2)
            assert await numbers(again, 1) == [2]


@pytest.mark.usefixtures("many_files")
async def test_it_answers_while_a_thousand_connections_are_silent(gateway: Gateway) -> None:
    silent: list[asyncio.StreamWriter] = []
    for _ in range(20):
        streams = (asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(50))
        silent += [writer for _, writer in await asyncio.gather(*streams)]
        async with asyncio.timeout(BOUNDED):
            async with client(gateway, token()):
                reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
                writer.close()
    for writer in silent:
        writer.close()


async def test_a_full_process_closes_with_1013(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(connections=2)
    async with client(gateway, token("a")), client(gateway, token("b")), client(gateway, token("c")) as third:
        assert await closing(third) == (1013, "overloaded, try again later")


async def test_a_flood_is_folded_into_one_resync(start_gateway: StartGateway, redis: Redis) -> None:
    gateway = await start_gateway(messages_per_second=0.001, messages_burst=20, resync_seconds=0.2)
    async with client(gateway, token()) as alice, client(gateway, token("bob")) as bob:
        for number in range(200):
            await publish(redis, "alice", number)
        await publish(redis, "bob", 1)
        assert await numbers(alice, 20) == list(range(20))
        assert await receive(alice) == RESYNC
        assert await numbers(bob, 1) == [1]
        await publish(redis, "alice", 200)
        assert await receive(alice) == RESYNC


async def test_after_a_flood_messages_flow_again(start_gateway: StartGateway, redis: Redis) -> None:
    gateway = await start_gateway(messages_per_second=100, messages_burst=5, resync_seconds=0.1)
    async with client(gateway, token()) as alice:
        async with redis.pipeline(transaction=False) as pipe:
            for number in range(100):
                pipe.publish("ws:alice", f'{{"n": {number}}}')
            await pipe.execute()
        while await receive(alice) != RESYNC:
            pass
        await publish(redis, "alice", 100)
        assert await numbers(alice, 1) == [100]


async def test_a_slow_reader_is_closed_and_hurts_nobody(start_gateway: StartGateway, redis: Redis) -> None:
    gateway = await start_gateway(**UNLIMITED, queue_messages=32, close_timeout_seconds=10.0)
    narrow = sockets.socket()
    narrow.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
    narrow.connect(("127.0.0.1", gateway.port))
    async with client(gateway, token(), sock=narrow) as slow, client(gateway, token()) as quick:
        slow.transport.pause_reading()
        sent = 0
        while len(sessions(gateway)) == 2:
            await publish(redis, "alice", sent, log=False, padding=20_000)
            assert (await receive(quick))["n"] == sent
            sent += 1
        await publish(redis, "alice", sent, log=False)
        assert await numbers(quick, 1) == [sent]
        slow.transport.resume_reading()
        assert await closing(slow) == (1013, "too slow")


async def test_who_does_not_even_read_the_close_is_cut_off(start_gateway: StartGateway, redis: Redis) -> None:
    gateway = await start_gateway(**UNLIMITED, queue_messages=4, close_timeout_seconds=0.2)
    async with client(gateway, token(), close_timeout=0.1) as slow:
        slow.transport.pause_reading()
        [connection] = gateway._server.connections
        while sessions(gateway):
            await publish(redis, "alice", log=False, padding=50_000)
        await asyncio.wait_for(connection.wait_closed(), PATIENCE)


async def test_unanswered_pings_close_with_4408(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(ping_interval_seconds=0.1, ping_timeout_seconds=1.5)
    async with client(gateway, token()) as silent, client(gateway, token()) as lively:
        silent.transport.pause_reading()
        await until(lambda: len(sessions(gateway)) == 1)
        silent.transport.resume_reading()
        assert await closing(silent) == (4408, "pings were not answered")
        await (await lively.ping())


async def test_what_a_client_says_is_ignored(gateway: Gateway, redis: Redis) -> None:
    async with client(gateway, token()) as socket:
        await socket.send('{"event": "subscribe", "channel": "ws:bob"}')
        await socket.send(b"\x00\xff")
        await publish(redis, "alice", 1)
        assert await numbers(socket, 1) == [1]


async def test_a_large_message_closes_with_1009(gateway: Gateway) -> None:
    before = closed(1009)
    async with client(gateway, token()) as socket:
        await socket.send("x" * 4_096)
        await socket.send("x" * 4_097)
        code, _ = await closing(socket)
        assert code == 1009
    await until(lambda: closed(1009) == before + 1)


@pytest.mark.parametrize("kind", ["message", "ping", "fragment"])
async def test_too_many_frames_close_with_1008(gateway: Gateway, kind: str) -> None:
    async with client(gateway, token()) as socket:
        match kind:
            case "message":
                for _ in range(60):
                    await socket.send("x")
            case "ping":
                for _ in range(60):
                    await socket.ping()
            case _:
                await socket.send([""] * 60)
        assert await closing(socket) == (1008, "too many frames")
