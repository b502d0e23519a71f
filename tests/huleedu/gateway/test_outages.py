"""Redis goes away and comes back, in every way it can."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
from pydantic import SecretStr
from redis.asyncio import Redis

from outbox.devstack import Valkey
from outbox.huleedu.gateway import Gateway
from tests.huleedu.conftest import StartGateway
from tests.support.gateway import (
    RESYNC,
    client,
    closed,
    closing,
    numbers,
    publish,
    receive,
    recovered,
    sessions,
    subscribers,
    token,
    until,
)

NO_UPDATES = (1013, "live updates are not available, try again later")


async def get(gateway: Gateway, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as browser:
        return await browser.get(f"http://127.0.0.1:{gateway.port}{path}")


async def test_after_a_restart_sockets_are_told_to_resync_and_messages_flow(
    start_gateway: StartGateway, own_redis: Valkey
) -> None:
    gateway = await start_gateway(redis_url=SecretStr(own_redis.url), redis_grace_seconds=60)
    async with client(gateway, token("alice")) as alice, client(gateway, token("bob")) as bob:
        await own_redis.start()
        assert await receive(alice) == RESYNC
        assert await receive(bob) == RESYNC
        async with Redis.from_url(own_redis.url) as redis:
            await publish(redis, "alice", 1)
            assert await numbers(alice, 1) == [1]


async def test_a_connection_that_redis_drops_is_replaced(gateway: Gateway, redis: Redis) -> None:
    async with client(gateway, token()) as socket:
        [ours] = [line for line in await redis.client_list() if line["name"] == "websocket-gateway"]
        await redis.client_kill_filter(_id=ours["id"])
        assert await receive(socket) == RESYNC
        assert await subscribers(redis, "alice") == 1
        await publish(redis, "alice", 1)
        assert await numbers(socket, 1) == [1]


async def test_while_redis_stays_away_sockets_are_closed_and_refused(
    start_gateway: StartGateway, own_redis: Valkey
) -> None:
    gateway = await start_gateway(redis_url=SecretStr(own_redis.url), redis_grace_seconds=0.2)
    async with client(gateway, token()) as socket:
        await own_redis.kill()
        assert await closing(socket) == NO_UPDATES
    async with client(gateway, token()) as socket:
        assert await closing(socket) == NO_UPDATES
    answer = await get(gateway, "/readyz")
    assert (answer.status_code, answer.json()) == (
        503,
        {
            "ready": False,
            "reasons": ["redis: it does not answer, so nobody hears what is published"],
            "redis": False,
            "keys": True,
        },
    )
    await own_redis.start()
    await until(lambda: gateway.ready)
    assert (await get(gateway, "/readyz")).status_code == 200
    async with client(gateway, token()) as socket, Redis.from_url(own_redis.url) as redis:
        await publish(redis, "alice", 1)
        assert await numbers(socket, 1) == [1]


async def test_a_redis_that_hangs_is_noticed(start_gateway: StartGateway, own_redis: Valkey) -> None:
    gateway = await start_gateway(
        redis_url=SecretStr(own_redis.url),
        redis_timeout_seconds=0.3,
        redis_ping_seconds=0.1,
        redis_grace_seconds=0.2,
    )
    async with client(gateway, token()) as socket:
        own_redis.pause()
        assert await closing(socket) == NO_UPDATES
    assert not sessions(gateway)
    own_redis.resume()
    await until(lambda: gateway.ready)


async def test_a_socket_is_not_open_before_its_subscription_is(
    start_gateway: StartGateway, own_redis: Valkey
) -> None:
    gateway = await start_gateway(
        redis_url=SecretStr(own_redis.url),
        redis_timeout_seconds=0.3,
        redis_ping_seconds=60,
        redis_grace_seconds=60,
    )
    own_redis.pause()
    async with client(gateway, token()) as socket:
        assert await closing(socket) == NO_UPDATES
    assert not sessions(gateway)
    own_redis.resume()


async def test_a_client_that_vanishes_while_it_is_let_in_leaves_nothing(
    start_gateway: StartGateway, own_redis: Valkey
) -> None:
    gateway = await start_gateway(redis_url=SecretStr(own_redis.url), redis_timeout_seconds=60)
    own_redis.pause()
    opening = asyncio.ensure_future(asyncio.wait_for(client(gateway, token()), 60))
    await until(lambda: sessions(gateway))
    opening.cancel()
    await until(lambda: not sessions(gateway))
    own_redis.resume()
    async with client(gateway, token("bob")), Redis.from_url(own_redis.url) as redis:
        assert await subscribers(redis, "alice") == 0


async def test_a_gateway_starts_while_redis_is_away(start_gateway: StartGateway, own_redis: Valkey) -> None:
    await own_redis.stop()
    gateway = await start_gateway(redis_url=SecretStr(own_redis.url), wait=False)
    assert not gateway.ready
    await own_redis.start()
    await until(lambda: gateway.ready)


async def test_health_and_metrics(gateway: Gateway, redis: Redis) -> None:
    before = closed("client")
    async with client(gateway, token("someone-special")) as socket:
        await publish(redis, "someone-special", 1)
        assert await numbers(socket, 1) == [1]
        text = (await get(gateway, "/metrics")).text
    assert "websocket_connections 1.0" in text
    assert "websocket_subscriptions 1.0" in text
    assert "websocket_redis_up 1.0" in text
    assert "someone-special" not in text
    await until(lambda: closed("client") == before + 1)
    assert (await get(gateway, "/livez")).text == "ok\n"
    ready = {"ready": True, "reasons": [], "redis": True, "keys": True}
    assert (await get(gateway, "/readyz")).json() == ready
    assert (await get(gateway, "/other")).status_code == 404
    assert (await get(gateway, "/ws")).status_code == 426


async def test_a_user_with_the_rights_of_the_manual_suffices(
    start_gateway: StartGateway, own_redis: Valkey
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "huleedu.md").read_text()
    rights = re.findall(r"`(\+info [^`]*)`.*?`(~[^`]*)`.*?`(&[^`]*)`.*?`(&[^`]*)`", text, re.DOTALL)
    async with Redis.from_url(own_redis.url) as redis:
        words = " ".join(rights[0]).split()
        await redis.execute_command("ACL SETUSER", "gateway", "on", ">secret", *words)
        gateway = await start_gateway(redis_url=own_redis.url.replace("//", "//gateway:secret@"))
        last = await publish(redis, "alice", 1)
        await publish(redis, "alice", 2)
        async with client(gateway, token(iat=1), last_message_id=last) as socket:
            assert await recovered(socket) == 1
            assert await numbers(socket, 1) == [2]
            await publish(redis, "alice", 3)
            assert await numbers(socket, 1) == [3]
            await redis.set("ws:revoked:alice", 2)
            await redis.publish("ws:revoked:alice", "")
            assert await closing(socket) == (4401, "revoked")
