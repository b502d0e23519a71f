"""What the gateway's tests do: issue tokens, publish as the outbox's sink does, connect as clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
from pydantic import SecretStr
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from outbox import new_id
from outbox.huleedu.gateway import Gateway, GatewaySettings, metrics
from outbox.huleedu.gateway.session import SocketSession
from tests.support.waiting import PATIENCE

SECRET = "a secret of at least thirty-two bytes"
UNLIMITED = {"messages_per_second": 1e9, "messages_burst": 10**9}
RESYNC = {"event": "resync_required"}
NOT_RECOVERED = {**RESYNC, "recovered": False}


def settings(**changed: Any) -> GatewaySettings:
    """Settings of a gateway that ends quickly, with changes; `redis_url` is one."""
    values = {
        "port": 0,
        "jwt_secret": SecretStr(SECRET),
        "drain_seconds": 0.0,
        "close_timeout_seconds": 2.0,
    }
    return GatewaySettings.model_validate({**values, **changed})


def claims(user: str = "alice", **changed: Any) -> dict[str, Any]:
    """What a good token says, with changes; None takes a claim out."""
    good = {
        "sub": user,
        "aud": "huleedu-platform",
        "iss": "huleedu-identity-service",
        "exp": int(time.time()) + 60,
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def token(user: str = "alice", **changed: Any) -> str:
    """A token that the identity service would have signed."""
    return jwt.encode(claims(user, **changed), SECRET, "HS256")


def client(
    gateway: Gateway | int,
    bearer: str | None = None,
    *,
    last_message_id: str | None = None,
    heartbeat: float | None = None,
    origin: str | None = None,
    **options: Any,
) -> connect:
    """A connection to the gateway (or its port), to be awaited or entered."""
    port = gateway if isinstance(gateway, int) else gateway.port
    asked = {"last_message_id": last_message_id, "heartbeat": heartbeat}
    query = "&".join(f"{name}={value}" for name, value in asked.items() if value is not None)
    headers = options.pop("additional_headers", {})
    if bearer is not None:
        headers = {**headers, "Authorization": f"Bearer {bearer}"}
    return connect(
        f"ws://127.0.0.1:{port}/ws?{query}",
        additional_headers=headers,
        origin=None if origin is None else Origin(origin),
        compression=None,
        proxy=None,
        **options,
    )


def as_browser(port: int, bearer: str) -> connect:
    """A connection made the way a browser does it, with the token as a subprotocol."""
    return connect(
        f"ws://127.0.0.1:{port}/ws",
        subprotocols=[Subprotocol("bearer"), Subprotocol(bearer)],
        origin=Origin("https://app.example.com"),
        proxy=None,
    )


async def publish(redis: Redis, user: str, number: int = 0, *, log: bool = True, padding: int = 0) -> str:
    """Publish a notification as the outbox's Redis sink does; returns its id."""
    message_id = str(new_id())
    body = json.dumps({"event": "test", "message_id": message_id, "n": number, "padding": "x" * padding})
    async with redis.pipeline(transaction=True) as pipe:
        if log:
            stream = f"ws:{user}:log"
            pipe.xadd(stream, {"message_id": message_id, "data": body}, maxlen=256, approximate=True)
            pipe.expire(stream, 300)
        pipe.publish(f"ws:{user}", body)
        await pipe.execute()
    return message_id


async def receive(socket: ClientConnection, deadline: float = PATIENCE) -> dict[str, Any]:
    """The next message."""
    async with asyncio.timeout(deadline):
        message: dict[str, Any] = json.loads(await socket.recv())
        return message


async def numbers(socket: ClientConnection, count: int) -> list[int]:
    """The numbers of the next messages."""
    return [(await receive(socket))["n"] for _ in range(count)]


async def recovered(socket: ClientConnection) -> int:
    """The first message of a socket that resumed: how many follow that were missed."""
    first = await receive(socket)
    assert first["recovered"], first
    return int(first["missed"])


async def closing(socket: ClientConnection, deadline: float = PATIENCE) -> tuple[int | None, str]:
    """Read until the gateway closes; the code and the reason."""
    async with asyncio.timeout(deadline):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed:
            return socket.close_code, socket.close_reason or ""


async def until(condition: Callable[[], Any], deadline: float = PATIENCE) -> None:
    """Wait until something has come true."""
    async with asyncio.timeout(deadline):
        while not condition():  # noqa: ASYNC110 (of a condition that nobody signals)
            await asyncio.sleep(0.01)


def sessions(gateway: Gateway) -> set[SocketSession]:
    """The sockets that are being served."""
    return gateway._door.sessions


async def subscribers(redis: Redis, user: str) -> int:
    """How many subscriptions Redis has for a user."""
    [(_, count)] = await redis.pubsub_numsub(f"ws:{user}")
    return int(count)


def closed(code: int | str) -> float:
    """How many sockets the gateways of this process have closed with this code."""
    return metrics.REGISTRY.get_sample_value("websocket_closed_total", {"code": str(code)}) or 0.0
