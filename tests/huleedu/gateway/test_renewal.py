"""Tokens while a socket is open: brought anew, and revoked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection

from outbox.huleedu.gateway import Gateway, session
from tests.huleedu.conftest import StartGateway
from tests.support.gateway import client, closing, numbers, publish, receive, token


async def renew(socket: ClientConnection, bearer: str) -> dict[str, Any]:
    await socket.send(json.dumps({"token": bearer}))
    return await receive(socket)


async def test_a_token_is_renewed_on_the_open_socket(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(jwt_leeway_seconds=0)
    now = int(time.time())
    async with client(gateway, token(exp=now + 4)) as socket:
        assert await renew(socket, token(exp=now + 6)) == {"event": "token_accepted", "expires_at": now + 6}
        assert await closing(socket) == (4401, "expired")
        assert time.time() >= now + 6


@pytest.mark.parametrize(
    ("bearer", "reason"),
    [
        (lambda: token(exp=int(time.time()) - 20), "expired"),
        (lambda: token(nbf=int(time.time()) + 60), "early"),
        (lambda: token(aud="another"), "claims"),
        (lambda: "no token", "signature"),
        (lambda: "\ud800.a lone surrogate", "signature"),
    ],
)
async def test_a_token_that_is_no_good_leaves_the_old_one(
    gateway: Gateway, redis: Redis, bearer: Callable[[], str], reason: str
) -> None:
    async with client(gateway, token()) as socket:
        assert await renew(socket, bearer()) == {"event": "token_refused", "reason": reason}
        await publish(redis, "alice", 1)
        assert await numbers(socket, 1) == [1]


async def test_a_token_of_somebody_else_closes_with_4401(gateway: Gateway) -> None:
    async with client(gateway, token()) as socket:
        await socket.send(json.dumps({"token": token("bob")}))
        assert await closing(socket) == (4401, "claims")


async def test_a_token_may_be_renewed_once_in_ten_seconds(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client(gateway, token()) as socket:
        assert (await renew(socket, token()))["event"] == "token_accepted"
        assert await renew(socket, token()) == {"event": "token_refused", "reason": "often"}
    monkeypatch.setattr(session, "_RENEWALS_PER_SECOND", 1e6)
    async with client(gateway, token()) as socket:
        for _ in range(3):
            assert (await renew(socket, token()))["event"] == "token_accepted"


async def test_what_looks_like_a_token_and_is_none_is_ignored(gateway: Gateway, redis: Redis) -> None:
    async with client(gateway, token()) as socket:
        for said in (
            '{"token": 1}',
            '["token"]',
            '"token"',
            '{"token"',
            b'\xff"token"',
            "[" * 3_000 + '"token"',
        ):
            await socket.send(said)
        await publish(redis, "alice", 1)
        assert await numbers(socket, 1) == [1]


async def test_a_revoked_token_is_refused_and_a_newer_one_is_not(gateway: Gateway, redis: Redis) -> None:
    now = int(time.time())
    await redis.set("ws:revoked:alice", now, ex=3_600)
    for bearer in (token(iat=now - 1), token()):
        async with client(gateway, bearer) as socket:
            assert await closing(socket) == (4401, "revoked")
    for bearer in (token(iat=now), token("bob", iat=now - 1)):
        async with client(gateway, bearer) as socket:
            await (await socket.ping())
    await redis.set("ws:revoked:alice", "all of them")
    async with client(gateway, token(iat=now)) as socket:
        assert await closing(socket) == (4401, "revoked")


async def test_a_message_hastens_a_revocation(gateway: Gateway, redis: Redis) -> None:
    now = int(time.time())
    async with client(gateway, token(iat=now - 1)) as old, client(gateway, token(iat=now)) as new:
        await redis.publish("ws:revoked:alice", "")  # There is no key, so nothing was revoked.
        await redis.publish(b"ws:revoked:\xff", "")
        await publish(redis, "alice", 1)
        assert await numbers(old, 1) == await numbers(new, 1) == [1]
        await redis.set("ws:revoked:alice", now)
        await redis.publish("ws:revoked:alice", "")
        assert await closing(old) == (4401, "revoked")
        await publish(redis, "alice", 2)
        assert await numbers(new, 1) == [2]


async def test_a_renewal_with_a_revoked_token_ends_the_socket(gateway: Gateway, redis: Redis) -> None:
    now = int(time.time())
    async with client(gateway, token(iat=now - 2)) as socket:
        await redis.set("ws:revoked:alice", now)
        await socket.send(json.dumps({"token": token(iat=now - 1)}))
        assert await closing(socket) == (4401, "revoked")
    async with client(gateway, token(iat=now)) as socket:
        assert (await renew(socket, token(iat=now + 1)))["event"] == "token_accepted"
