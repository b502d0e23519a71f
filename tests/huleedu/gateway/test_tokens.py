"""Who gets in: every way to bring a token, and every token that must not do."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from outbox.huleedu.gateway import Gateway
from tests.huleedu.conftest import StartGateway
from tests.support.gateway import SECRET, as_browser, claims, client, closing, publish, receive, token


def signed(secret: str = SECRET, algorithm: str = "HS256", **changed: Any) -> str:
    return jwt.encode(claims(**changed), secret, algorithm)


BAD_TOKENS = {
    "no token": "",
    "no JWT": "alice",
    "another secret": signed("another secret of at least 32 bytes!"),
    "not signed": jwt.encode(claims(), "", "none"),
    "another algorithm": signed(SECRET * 2, "HS512"),
    "changed after signing": token().replace(".", ".e30", 1),
    "expired": token(exp=int(time.time()) - 1),
    "never expires": token(exp=None),
    "foreign audience": token(aud="another-platform"),
    "no audience": token(aud=None),
    "foreign issuer": token(iss="somebody"),
    "no issuer": token(iss=None),
    "no user": token(sub=None),
    "an empty user": token(sub=""),
    "a user with a line break": token(sub="a\nb"),
    "not valid yet": token(nbf=int(time.time()) + 60),
}


@pytest.mark.parametrize("bearer", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_a_bad_token_is_closed_with_4401_before_anything_is_subscribed(
    gateway: Gateway, redis: Redis, bearer: str
) -> None:
    await redis.config_resetstat()
    async with client(gateway, bearer) as socket:
        code, reason = await closing(socket)
    assert code == 4401
    assert reason in ("token refused", "token expired")
    assert "cmdstat_subscribe" not in await redis.info("commandstats")


async def test_no_token_is_closed_with_4401(gateway: Gateway) -> None:
    async with client(gateway) as socket:
        assert await closing(socket) == (4401, "no token")


async def test_a_token_may_be_a_subprotocol_which_is_not_answered(
    start_gateway: StartGateway, redis: Redis
) -> None:
    gateway = await start_gateway(allowed_origins="https://app.example.com")
    async with as_browser(gateway.port, token()) as socket:
        assert socket.subprotocol == "bearer"
        await publish(redis, "alice", 1)
        assert (await receive(socket))["n"] == 1


async def test_a_token_may_be_in_the_query(gateway: Gateway, redis: Redis) -> None:
    async with connect(f"ws://127.0.0.1:{gateway.port}/ws?token={token()}", proxy=None) as socket:
        await publish(redis, "alice", 1)
        assert (await receive(socket))["n"] == 1


async def test_the_socket_closes_when_its_token_expires(gateway: Gateway) -> None:
    async with client(gateway, token(exp=int(time.time()) + 2)) as socket:
        assert await closing(socket) == (4401, "token expired")


async def test_a_foreign_origin_is_refused_before_the_handshake(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(allowed_origins="https://app.example.com, https://b.example.com")
    with pytest.raises(InvalidStatus) as refusal:
        await client(gateway, token(), origin="https://evil.example.com")
    assert refusal.value.response.status_code == 403
    async with client(gateway, token(), origin="https://b.example.com"):
        pass
    async with client(gateway, token(), origin=None):
        pass


async def test_any_origin_may_connect_if_that_is_set(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(allowed_origins="*")
    async with client(gateway, token(), origin="https://evil.example.com"):
        pass
