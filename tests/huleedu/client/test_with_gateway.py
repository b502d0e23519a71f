"""The built client in Node against real gateways: what a page would be told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from outbox import new_id
from outbox.devstack.server import free_port
from outbox.huleedu.gateway import Gateway
from tests.huleedu.conftest import StartGateway
from tests.support.gateway import settings, token, until
from tests.support.node import NODE

TALK = Path(__file__).with_name("talk.mjs")
QUICK = {"firstRetry": 50, "longestRetry": 200, "settle": 100, "pollAfter": 300, "pollEvery": 100}


class Browser:
    """A page in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.told: list[dict[str, Any]] = []
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, port: int, *tokens: str, **options: Any) -> Browser:
        options = {"url": f"ws://127.0.0.1:{port}/ws", "tokens": tokens, "timing": QUICK, **options}
        process = await asyncio.create_subprocess_exec(
            NODE,
            str(TALK),
            json.dumps(options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        assert await asyncio.wait_for(self._process.wait(), 10) == 0
        await self._reading

    def all(self, what: str) -> list[Any]:
        return [line[what] for line in self.told if what in line]

    @property
    def uploads(self) -> list[str]:
        return [slot["file_upload_id"] for slot in self.all("slot")]

    @property
    def state(self) -> str | None:
        return self.all("status")[-1]["state"] if self.all("status") else None

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            self.told.append(json.loads(line))


OpenBrowser = Callable[..., Any]


@pytest.fixture
async def open_browser() -> AsyncIterator[OpenBrowser]:
    browsers: list[Browser] = []

    async def start(port: int, *tokens: str, **options: Any) -> Browser:
        browsers.append(await Browser.open(port, *tokens, **options))
        return browsers[-1]

    yield start
    for browser in browsers:
        await browser.close()
        assert browser.state == "stopped"


async def assign(redis: Redis, number: int) -> None:
    """Tell alice of an assigned slot, as the outbox's Redis sink does."""
    message_id = str(new_id())
    data = {"batch_id": "batch", "essay_id": f"essay-{number}", "file_upload_id": f"upload-{number}"}
    message = {
        "event": "essay_slot_assigned",
        "message_id": message_id,
        "data": {**data, "filename": None, "slot_index": number, "text_storage_id": "text"},
    }
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xadd("ws:alice:log", {"message_id": message_id, "data": json.dumps(message)})
        pipe.publish("ws:alice", json.dumps(message))
        await pipe.execute()


async def test_a_slot_reaches_the_page(
    start_gateway: StartGateway, redis: Redis, open_browser: OpenBrowser
) -> None:
    gateway = await start_gateway()
    browser = await open_browser(gateway.port, token())
    await until(lambda: browser.state == "open")
    await assign(redis, 1)
    await until(lambda: browser.uploads == ["upload-1"])
    assert browser.all("resync") == [True]
    assert browser.all("event")[0]["data"]["slot_index"] == 1


async def test_what_a_page_misses_between_two_gateways_it_gets_once(
    start_gateway: StartGateway, redis_url: str, redis: Redis, open_browser: OpenBrowser
) -> None:
    port = free_port()
    async with Gateway(settings(redis_url=redis_url, port=port)) as first:
        await until(lambda: first.ready)
        browser = await open_browser(port, token())
        await until(lambda: browser.state == "open")
        await assign(redis, 1)
        await until(lambda: browser.uploads == ["upload-1"])
    await until(lambda: browser.state != "open")
    assert {"state": "connecting", "reason": "the server goes away, connect again", "code": 1001} in (
        browser.all("status")
    )
    for number in range(2, 5):
        await assign(redis, number)
    await start_gateway(port=port)
    await until(lambda: browser.state == "open")
    await assign(redis, 5)
    await until(lambda: len(browser.uploads) >= 5)
    assert browser.uploads == [f"upload-{number}" for number in range(1, 6)]
    assert browser.all("resync") == [True]


async def test_an_expired_token_is_replaced_and_a_bad_one_ends_it(
    start_gateway: StartGateway, redis: Redis, open_browser: OpenBrowser
) -> None:
    gateway = await start_gateway()
    short = token(exp=int(time.time()) - 8)
    browser = await open_browser(gateway.port, short, token(), timing={**QUICK, "stable": 1})
    await until(lambda: len(browser.all("token")) == 2 and browser.state == "open")
    await assign(redis, 1)
    await until(lambda: browser.uploads == ["upload-1"])
    refused = await open_browser(gateway.port, token(aud="another"))
    await until(lambda: refused.state == "stopped")
    assert len(refused.all("token")) == 2
    assert refused.all("status")[-1] == {"state": "stopped", "reason": "claims", "code": 4401}


async def test_without_a_gateway_the_page_asks_its_server(
    start_gateway: StartGateway, redis: Redis, open_browser: OpenBrowser
) -> None:
    essays: list[dict[str, Any]] = []

    def answer(connection: ServerConnection, request: Request) -> Response:
        assert request.path == "/v1/batches/batch/status"
        assert request.headers["Authorization"] == f"Bearer {bearer}"
        return connection.respond(HTTPStatus.OK, json.dumps({"batch_id": "batch", "essays": essays}))

    def assigned(number: int) -> dict[str, Any]:
        return {"essay_id": f"essay-{number}", "file_upload_id": f"upload-{number}", "slot_index": number}

    async def nothing(_: ServerConnection) -> None:
        pass

    port, bearer = free_port(), token()
    async with serve(nothing, "127.0.0.1", 0, process_request=answer) as page_server:
        address = f"http://127.0.0.1:{page_server.sockets[0].getsockname()[1]}"
        browser = await open_browser(port, bearer, poll={"url": address, "batchIds": ["batch"]})
        await until(lambda: browser.state == "polling")
        essays.append(assigned(1))
        await until(lambda: browser.uploads == ["upload-1"])
        await start_gateway(port=port)
        await until(lambda: browser.state == "open")
        await assign(redis, 1)
        await assign(redis, 2)
        await until(lambda: browser.uploads == ["upload-1", "upload-2"])
