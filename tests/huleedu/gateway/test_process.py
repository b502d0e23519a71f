"""The gateway as a process: its end, its settings, its logs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from outbox.devstack import Valkey
from outbox.devstack.server import free_port
from outbox.errors import SettingsError
from outbox.huleedu.gateway import GatewaySettings
from tests.support.gateway import SECRET, as_browser, client, closing, token, until
from tests.support.waiting import BOUNDED, PATIENCE

PROGRAM = "from outbox.huleedu.gateway import GatewaySettings, main; main(GatewaySettings.load())"
SILENT_NAMES = """
import socket, time
look_up = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **options: (
    time.sleep(3_600) if str(host).endswith(".silent") else look_up(host, *rest, **options)
)
"""
"""Whoever looks up a name there waits, as for a name server that is behind a blackhole."""


class Process:
    """A gateway in a process of its own, with its log."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.log = log
        self.process: asyncio.subprocess.Process

    async def start(self, redis_url: str, *, before: str = "", **settings: str) -> None:
        environment = {
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_REDIS_URL": redis_url,
            "GATEWAY_JWT_SECRET": SECRET,
            "GATEWAY_LOG_FORMAT": "json",
            **settings,
        }
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", before + PROGRAM, env={**os.environ, **environment}, stderr=log
            )
        await until(lambda: '"redis.subscribed"' in self.log.read_text())

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), PATIENCE)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    process = Process(tmp_path / "log")
    yield process
    if process.process.returncode is None:
        process.process.kill()
        await process.process.wait()


async def test_on_sigterm_sockets_are_closed_with_1001_spread_over_time(
    process: Process, redis_url: str
) -> None:
    await process.start(redis_url, GATEWAY_DRAIN_SECONDS="1")

    async def end_of(number: int) -> float:
        async with client(process.port, token(f"user-{number}")) as socket:
            open_sockets.release()
            assert await closing(socket) == (1001, "the server goes away, connect again")
            return time.monotonic()

    open_sockets = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as tasks:
        ends = [tasks.create_task(end_of(number)) for number in range(30)]
        for _ in ends:
            await open_sockets.acquire()
        began = time.monotonic()
        assert await process.stop() == 0
    times = [end.result() - began for end in ends]
    assert max(times) - min(times) > 0.3
    assert max(times) < BOUNDED


async def test_it_ends_within_ten_seconds_whatever_clients_and_redis_do(
    process: Process, own_redis: Valkey
) -> None:
    await process.start(own_redis.url, GATEWAY_DRAIN_SECONDS="0.5")
    async with AsyncExitStack() as stack:
        silent = await asyncio.open_connection("127.0.0.1", process.port)
        stack.callback(silent[1].close)
        for number in range(5):
            asleep = await stack.enter_async_context(
                client(process.port, token(f"user-{number}"), close_timeout=0.1)
            )
            asleep.transport.pause_reading()
        own_redis.pause()
        _, late = await asyncio.open_connection("127.0.0.1", process.port)
        stack.callback(late.close)
        late.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Authorization: Bearer %s\r\n\r\n" % token().encode()
        )
        began = time.monotonic()
        assert await process.stop() == 0
        assert time.monotonic() - began < 10
        own_redis.resume()


async def test_it_ends_within_ten_seconds_though_the_name_of_the_issuer_cannot_be_looked_up(
    process: Process, redis_url: str
) -> None:
    await process.start(
        redis_url,
        before=SILENT_NAMES,
        GATEWAY_JWT_SECRET="",
        GATEWAY_JWKS="http://keys.silent/jwks.json",
        GATEWAY_DRAIN_SECONDS="0",
    )
    async with client(process.port, token()) as waits_for_keys:
        assert (await closing(waits_for_keys, 20))[0] == 1013
    began = time.monotonic()
    assert await process.stop() == 0
    assert time.monotonic() - began < 10


async def test_the_clients_address_is_logged_behind_a_trusted_proxy_too(
    process: Process, redis_url: str
) -> None:
    await process.start(redis_url, GATEWAY_TRUSTED_PROXIES="127.0.0.1", GATEWAY_DRAIN_SECONDS="0")
    headers = {"Authorization": f"Bearer {token()}", "X-Forwarded-For": "192.0.2.1"}
    async with client(process.port, additional_headers=headers), client(process.port, "no token"):
        pass
    assert await process.stop() == 0
    told = {str(line["event"]): line.get("client") for line in process.lines()}
    assert told["websocket.opened"] == told["websocket.closed"] == "192.0.2.1"
    assert told["websocket.refused"] == "127.0.0.1"


async def test_no_token_or_payload_is_ever_logged(process: Process, redis_url: str) -> None:
    await process.start(
        redis_url, GATEWAY_LOG_LEVEL="debug", GATEWAY_ALLOWED_ORIGINS="*", GATEWAY_DRAIN_SECONDS="0"
    )
    good, bad = token("carol"), token("carol", aud="another")
    async with AsyncExitStack() as stack:
        for bearer in (good, bad):
            await stack.enter_async_context(client(process.port, bearer))
            await stack.enter_async_context(as_browser(process.port, bearer))
            url = f"ws://127.0.0.1:{process.port}/ws?token={bearer}"
            await stack.enter_async_context(connect(url, proxy=None))
            with pytest.raises(Exception, match="404"):
                await connect(url.replace("/ws", "/other"), proxy=None)
    assert await process.stop() == 0
    text = process.log.read_text()
    for bearer in (good, bad):
        for part in bearer.split("."):
            assert part not in text
    assert SECRET not in text
    assert "token=" not in text
    opened = next(line for line in process.lines() if line["event"] == "websocket.opened")
    assert opened["user_id"] == "carol"
    assert opened["service.name"] == "websocket-gateway"


def test_settings_come_from_the_environment() -> None:
    settings = GatewaySettings.load(
        {
            "GATEWAY_REDIS_URL": "redis://localhost",
            "GATEWAY_JWKS": "https://id.example.com/jwks.json",
            "GATEWAY_JWT_SECRET": "",
            "GATEWAY_ALLOWED_ORIGINS": "https://a.example.com, https://b.example.com",
            "GATEWAY_DRAIN_SECONDS": "2",
            "GATEWAY_PING_INTERVAL_SECONDS": "500ms",
        }
    )
    assert settings.allowed_origins == ("https://a.example.com", "https://b.example.com")
    assert (settings.port, settings.drain_seconds, settings.ping_interval_seconds) == (8080, 2.0, 0.5)
    assert settings.jwt_secret is None


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "GATEWAY_REDIS_URL: field required"),
        (
            {"GATEWAY_REDIS_URL": "http://localhost"},
            "GATEWAY_REDIS_URL=http://localhost: redis URL must specify",
        ),
        ({"GATEWAY_REDIS_URL": "redis://r:many"}, "GATEWAY_REDIS_URL=redis://r:many: port could not be cast"),
        (
            {"GATEWAY_REDIS_URL": "redis://r", "GATEWAY_JWT_SECRET": "short"},
            r"GATEWAY_JWT_SECRET=\*\*\*: must be at",
        ),
        ({"GATEWAY_REDIS_URL": "redis://r"}, "set either GATEWAY_JWT_SECRET"),
        ({"GATEWAY_REDIS_URL": "redis://r", "GATEWAY_PORT": "high"}, "GATEWAY_PORT=high: input should be"),
    ],
)
def test_a_wrong_setting_names_itself(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        GatewaySettings.load(environment)
