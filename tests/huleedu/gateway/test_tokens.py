"""Who gets in: every way to bring a token, and every token that must not do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from outbox.huleedu.gateway import Gateway
from tests.huleedu.conftest import StartGateway
from tests.support.gateway import SECRET, as_browser, claims, client, closing, publish, receive, token
from tests.support.waiting import PATIENCE


def signed(secret: str = SECRET, algorithm: str = "HS256", **changed: Any) -> str:
    return jwt.encode(claims(**changed), secret, algorithm)


BAD_TOKENS: dict[str, Callable[[], str]] = {
    "no token": lambda: "",
    "no JWT": lambda: "alice",
    "another secret": lambda: signed("another secret of at least 32 bytes!"),
    "not signed": lambda: jwt.encode(claims(), "", "none"),
    "another algorithm": lambda: signed(SECRET * 2, "HS512"),
    "changed after signing": lambda: token().replace(".", ".e30", 1),
    "expired": lambda: token(exp=int(time.time()) - 20),
    "never expires": lambda: token(exp=None),
    "foreign audience": lambda: token(aud="another-platform"),
    "no audience": lambda: token(aud=None),
    "foreign issuer": lambda: token(iss="somebody"),
    "no issuer": lambda: token(iss=None),
    "no user": lambda: token(sub=None),
    "an empty user": lambda: token(sub=""),
    "a user with a line break": lambda: token(sub="a\nb"),
    "not valid yet": lambda: token(nbf=int(time.time()) + 60),
    "issued later": lambda: token(iat=int(time.time()) + 60),
}


REASONS = {
    **dict.fromkeys(list(BAD_TOKENS)[:6], "signature"),
    "expired": "expired",
    "not valid yet": "early",
    "issued later": "early",
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_bad_token_is_closed_with_4401_and_why_before_anything_is_subscribed(
    gateway: Gateway, redis: Redis, name: str
) -> None:
    await redis.config_resetstat()
    async with client(gateway, BAD_TOKENS[name]()) as socket:
        assert await closing(socket) == (4401, REASONS.get(name, "claims"))
    assert "cmdstat_subscribe" not in await redis.info("commandstats")


async def test_a_token_that_is_no_text_is_a_bad_one(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    writer.write(head.encode() + b"Authorization: Bearer \xff.\xff.\xff\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"\r\n\r\n")
        assert (await reader.readexactly(13))[2:] == (4401).to_bytes(2) + b"signature"
    writer.close()


async def test_no_token_is_closed_with_4401(gateway: Gateway) -> None:
    async with client(gateway) as socket:
        assert await closing(socket) == (4401, "signature")


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


async def test_the_socket_closes_when_its_token_expires(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(jwt_leeway_seconds=1)
    async with client(gateway, token(exp=int(time.time()) + 1)) as socket:
        assert await closing(socket) == (4401, "expired")


async def test_a_clock_may_be_ten_seconds_off(gateway: Gateway) -> None:
    now = int(time.time())
    for bearer in (token(iat=now + 8, nbf=now + 8), token(exp=now - 2)):
        async with client(gateway, bearer) as socket:
            await (await socket.ping())


async def test_two_secrets_may_overlap(start_gateway: StartGateway) -> None:
    newer = "another secret of at least 32 bytes!"
    gateway = await start_gateway(jwt_secret=newer, jwt_secret_before=SECRET)
    for bearer in (signed(newer), signed(SECRET)):
        async with client(gateway, bearer) as socket:
            await (await socket.ping())
    async with client(gateway, signed("a third secret of at least 32 bytes!!")) as socket:
        assert await closing(socket) == (4401, "signature")


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
