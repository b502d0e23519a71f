"""Connections as such: how many that nobody has been let in on, whose they are, and which gives way."""

from __future__ import annotations

import asyncio
import resource
from contextlib import AsyncExitStack, suppress

import pytest
from structlog.testing import capture_logs
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request

from outbox.devstack import Valkey
from outbox.huleedu.gateway import Gateway, GatewaySettings, metrics
from outbox.huleedu.gateway.addresses import Addresses
from outbox.huleedu.gateway.files import connections_for
from tests.huleedu.conftest import StartGateway
from tests.support.gateway import client, closed, closing, sessions, token, until
from tests.support.waiting import PATIENCE

TOO_MANY = (4429, "too many connections")


def sample(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(name) or 0.0


async def silent(stack: AsyncExitStack, gateway: Gateway) -> asyncio.StreamReader:
    """Connects and says nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    stack.callback(writer.close)
    return reader


async def is_over(reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionError):
        return await reader.read(1) == b""
    return True


@pytest.mark.parametrize("limit", ["unauthenticated", "unauthenticated_per_address"])
async def test_the_oldest_silent_connection_gives_way(start_gateway: StartGateway, limit: str) -> None:
    gateway = await start_gateway(**{limit: 3})
    async with AsyncExitStack() as stack:
        readers = [await silent(stack, gateway) for _ in range(5)]
        for reader in readers[:2]:
            assert await asyncio.wait_for(is_over(reader), PATIENCE)
        assert sample("websocket_unauthenticated") == 3
        async with client(gateway, token()) as socket:
            await (await socket.ping())
            assert await asyncio.wait_for(is_over(readers[2]), PATIENCE)
            assert sample("websocket_unauthenticated") == 2  # who was let in is none of them
        assert not readers[4].at_eof()


async def test_one_address_behind_a_proxy_keeps_no_other_out(
    start_gateway: StartGateway, own_redis: Valkey
) -> None:
    gateway = await start_gateway(
        redis_url=own_redis.url,
        unauthenticated_per_address=2,
        trusted_proxies="127.0.0.0/8",
        redis_timeout_seconds=60,
    )
    own_redis.pause()  # So nobody is let in for now.
    async with asyncio.TaskGroup() as tasks:

        async def come(address: str) -> None:
            headers = {"X-Forwarded-For": f"9.9.9.9, {address}", "Authorization": f"Bearer {token()}"}
            async with client(gateway, additional_headers=headers) as socket:
                await (await socket.ping())

        waiting = [tasks.create_task(come("192.0.2.1")) for _ in range(2)]
        await until(lambda: len(sessions(gateway)) == 2)
        headers = {"X-Forwarded-For": "192.0.2.1", "Authorization": f"Bearer {token()}"}
        async with client(gateway, additional_headers=headers) as third:
            assert await closing(third) == TOO_MANY
        waiting.append(tasks.create_task(come("192.0.2.2")))
        await until(lambda: len(sessions(gateway)) == 3)
        own_redis.resume()


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["9.9.9.9, 198.51.100.1, 10.2.3.4"], "198.51.100.1"),
        ("10.0.0.1", ["9.9.9.9", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        ("::1", ["2001:DB8::1"], "2001:db8::1"),
    ],
)
def test_the_clients_address_is_the_nearest_that_is_no_trusted_proxys(
    peer: str, forwarded: list[str], found: str
) -> None:
    request = Request("/ws", Headers())
    for value in forwarded:
        request.headers["X-Forwarded-For"] = value
    assert Addresses(("10.0.0.0/8", "::1")).client(peer, request) == found


async def test_a_refused_origin_is_logged_and_counted(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(allowed_origins="https://app.example.com", trusted_proxies="127.0.0.1")
    before = sample("websocket_origins_refused_total")
    with capture_logs() as lines, pytest.raises(InvalidStatus, match="403"):
        await client(
            gateway,
            origin="https://evil.example.com",
            additional_headers={"X-Forwarded-For": "192.0.2.1", "Authorization": f"Bearer {token()}"},
        )
    [line] = [line for line in lines if line["event"] == "websocket.origin_refused"]
    assert (line["origin"], line["client"]) == ("https://evil.example.com", "192.0.2.1")
    assert sample("websocket_origins_refused_total") == before + 1


async def test_half_open_sockets_give_way_to_a_reconnecting_teacher(gateway: Gateway) -> None:
    before = closed(4408)
    async with AsyncExitStack() as stack:
        five = [
            await stack.enter_async_context(client(gateway, token(), close_timeout=0.1)) for _ in range(5)
        ]
        for asleep in five[1:3]:
            asleep.transport.pause_reading()
        async with client(gateway, token()) as sixth:
            for socket in (sixth, five[0], five[3], five[4]):
                await (await socket.ping())
            await until(lambda: closed(4408) == before + 2)
            assert len(sessions(gateway)) == 4


@pytest.mark.parametrize(
    ("limits", "room", "raised"),
    [
        ((256, 4_096), 1_000, 3_100),
        ((256, 2_500), 400, 2_500),
        ((256, 600), 1, 600),
        ((8_192, 8_192), 1_000, 8_192),
    ],
)
def test_the_limit_on_files_is_compared_with_the_setting(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], room: int, raised: int
) -> None:
    now = limits

    def change(_: int, wanted: tuple[int, int]) -> None:
        nonlocal now
        now = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: now)
    monkeypatch.setattr(resource, "setrlimit", change)
    with capture_logs() as lines:
        assert connections_for(1_000, 2_000) == room
    assert now == (raised, limits[1])
    assert bool(lines) is (room < 1_000)


def test_a_proxy_is_an_address_or_a_network() -> None:
    with pytest.raises(ValueError, match=r"proxy\.example"):
        GatewaySettings.model_validate(
            {"redis_url": "redis://r", "jwks": "file", "trusted_proxies": "proxy.example"}
        )
