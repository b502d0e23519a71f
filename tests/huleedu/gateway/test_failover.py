"""Another Redis is the master by now: who notices, and what browsers are told."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from functools import partial
from time import monotonic
from typing import Any, Self

import httpx
from pydantic import SecretStr
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from outbox import new_id
from outbox.devstack import Valkey
from outbox.devstack.server import HOST
from outbox.huleedu.gateway import Gateway
from outbox.settings import RedisSettings
from outbox.sinks.redis import RedisSink
from tests.huleedu.conftest import StartGateway
from tests.sinks.redis.test_sentinel import Cluster
from tests.support import servers, waiting
from tests.support.deliveries import delivery
from tests.support.gateway import (
    NOT_RECOVERED,
    RESYNC,
    UNLIMITED,
    client,
    closing,
    numbers,
    publish,
    receive,
    recovered,
    token,
    until,
)
from tests.support.sentinel import watched
from tests.support.sinks import is_sent, started

NO_UPDATES = (1013, "live updates are not available, try again later")
QUICK = {"redis_timeout_seconds": 1.0, "redis_ping_seconds": 0.1, "redis_grace_seconds": 60}


async def test_a_cluster_is_refused_with_a_sentence(start_gateway: StartGateway) -> None:
    async with AsyncExitStack() as stack:
        node = await servers.start(stack, Cluster)
        gateway = await start_gateway(redis_url=node.url, wait=False)
        async with httpx.AsyncClient(trust_env=False) as machine:
            while "Cluster" not in (text := (await machine.get(f"http://{HOST}:{gateway.port}/readyz")).text):
                pass
        assert "a channel and its log lie in two slots" in text
        async with client(gateway, token()) as socket:
            assert await closing(socket) == NO_UPDATES


async def test_a_master_that_became_a_replica_is_noticed(
    start_gateway: StartGateway, own_redis: Valkey
) -> None:
    gateway = await start_gateway(redis_url=own_redis.url, **{**QUICK, "redis_grace_seconds": 0.2})
    async with client(gateway, token()) as socket, Redis.from_url(own_redis.url) as redis:
        await redis.replicaof(HOST, "1")  # It answers PING as before.
        assert await closing(socket) == NO_UPDATES
        await redis.replicaof("NO", "ONE")
        await until(lambda: gateway.ready)


class Name:
    """A name for a server, as in DNS: who connects now is led to the server that it means now."""

    def __init__(self, server: Valkey) -> None:
        self.server = server
        self._listener: asyncio.Server
        self._copying: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._lead, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._copying:
            task.cancel()
        await asyncio.gather(*self._copying, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self._listener.sockets[0].getsockname()[1]}"

    async def _lead(self, here: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        there, on = await asyncio.open_connection(HOST, self.server.port)
        self._copying |= {asyncio.create_task(copy(here, on)), asyncio.create_task(copy(there, back))}


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    except OSError:
        pass
    finally:
        target.close()


async def test_a_subscription_to_yesterdays_master_is_noticed_by_publishing_to_oneself(
    start_gateway: StartGateway, own_redis: Valkey
) -> None:
    """The connection lives, PING is answered, it is a master: only nothing is published there any more."""
    async with AsyncExitStack() as stack:
        other = await servers.start(stack, Valkey)
        name = await stack.enter_async_context(Name(own_redis))
        gateway = await start_gateway(redis_url=name.url, **QUICK)
        yesterday = await stack.enter_async_context(Redis.from_url(own_redis.url))
        last = await publish(yesterday, "alice", 0)
        async with client(gateway, token(), last_message_id=last) as resumed:
            assert await recovered(resumed) == 0
        socket = await stack.enter_async_context(client(gateway, token()))
        name.server = other
        assert await receive(socket) == RESYNC
        today = await stack.enter_async_context(Redis.from_url(other.url))
        await publish(today, "alice", 1)
        assert await numbers(socket, 1) == [1]
        async with client(gateway, token(), last_message_id=last) as resumed:
            assert await receive(resumed) == NOT_RECOVERED


class Browser:
    """A page that connects again and again, and goes on from what it saw last."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.asked: list[float] = [0.0]
        """When it loaded the state, because it was told to."""
        self._last: str | None = None

    async def look(self, gateway: Gateway) -> None:
        while True:
            with suppress(ConnectionClosed, OSError):
                async with client(gateway, token(), last_message_id=self._last) as socket:
                    async for text in socket:
                        self._hear(json.loads(text))
            await asyncio.sleep(0.05)

    def _hear(self, message: dict[str, Any]) -> None:
        if message["event"] == "resync_required":
            self.asked.append(monotonic())
        elif "n" in message:
            self.seen.add(message["n"])
            self._last = message["message_id"]


async def test_a_failover_under_load_leaves_no_hole_that_nobody_tells_of(start_gateway: StartGateway) -> None:
    async with watched() as redis, asyncio.TaskGroup() as tasks:
        gateway = await start_gateway(
            redis_url=SecretStr(redis.url), **UNLIMITED, **{**QUICK, "redis_grace_seconds": 1}
        )
        sink = RedisSink(RedisSettings(url=SecretStr(redis.url), stream=True), timeout=1.0)
        browser, sent, killed = Browser(), list[float](), 10**9
        looking = tasks.create_task(browser.look(gateway))
        async with started(sink), asyncio.timeout(60):
            while max(browser.seen, default=0) < killed + 100:
                name = new_id()
                body = json.dumps({"event": "test", "message_id": str(name), "n": len(sent)})
                notice = delivery("ws:alice", message_id=name, payload=body.encode())
                await waiting.until(partial(is_sent, sink, [notice]))
                sent.append(monotonic())
                if len(sent) == 200:
                    await redis.first.kill()
                    killed = len(sent)
        looking.cancel()
    shown = sent[: max(browser.seen)]
    assert not [n for n, when in enumerate(shown) if n not in browser.seen and browser.asked[-1] < when]
