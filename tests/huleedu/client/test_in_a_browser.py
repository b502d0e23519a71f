"""The client in a real browser, behind networks that let it down and in a page that sleeps."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.huleedu.client.conftest import QUICK, assign
from tests.huleedu.conftest import StartGateway
from tests.support.browser import Browser, browsing
from tests.support.gateway import subscribers, token
from tests.support.network import Network, network
from tests.support.page_server import PageServer, page_server
from tests.support.waiting import until

pytestmark = pytest.mark.slow

CONNECT = """
const [options, token] = arguments;
globalThis.slots = [];
globalThis.states = [];
return import("/client/client.js").then(({ connect }) => {
  globalThis.connection = connect({
    ...options,
    token: () => token,
    onSlotAssigned: (slot, { live }) => slots.push([slot.file_upload_id, live]),
    onStatus: ({ state }) => states.push(state),
  });
});
"""
TIMING = {**QUICK, "heartbeat": 1_000, "silence": 2_000, "handshake": 1_000, "resyncWithin": 100}


class Window:
    """A page in a browser, with its ways to a gateway and to its server."""

    def __init__(self, browser: Browser, gateways: Network, server: PageServer) -> None:
        self.browser, self.gateways, self.server = browser, gateways, server

    async def connect(self, **timing: Any) -> None:
        """Begin, and be open."""
        await self.browser.open(f"http://127.0.0.1:{self.server.port}/")
        options = {
            "url": f"ws://127.0.0.1:{self.gateways.port}/ws",
            "poll": {"url": "/", "batchIds": ["batch"]},
            "timing": {**TIMING, **timing},
        }
        await self.browser.script(CONNECT, options, token())
        await self.comes_to("open")

    async def comes_to(self, state: str) -> None:
        """Wait for this state."""

        async def there() -> bool:
            return bool(await self.browser.script("return states.at(-1)") == state)

        await until(there)

    async def shows(self, *slots: tuple[int, bool]) -> None:
        """Wait for these slots, and whether each was told as it happened."""
        expected = [[f"upload-{number}", live] for number, live in slots]
        try:
            await until(lambda: self._shows(expected))
        except TimeoutError:
            raise AssertionError(json.dumps(await self.browser.script("return [slots, states]"))) from None

    async def _shows(self, expected: list[list[Any]]) -> bool:
        return bool(await self.browser.script("return slots") == expected)


@pytest.fixture
async def window(start_gateway: StartGateway, tmp_path: Path) -> AsyncIterator[Window]:
    """A window on a gateway and a server of its own."""
    gateway = await start_gateway(allowed_origins=("*",))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(page_server())
        server.essays["batch"] = []
        gateways = await stack.enter_async_context(network(gateway.port))
        browser = await stack.enter_async_context(browsing(tmp_path / "profile"))
        yield Window(browser, gateways, server)


@pytest.mark.parametrize("fault", ["swallows", "cuts", "closes one half"])
async def test_a_network_that(fault: str, window: Window, redis: Redis) -> None:
    await window.connect(pollAfterLoss=60_000)
    await assign(redis, 1)
    await window.shows((1, True))
    if fault == "swallows":
        window.gateways.swallow()
        window.gateways.swallow(on=False)
    elif fault == "cuts":
        window.gateways.cut()
    else:
        window.gateways.half_close()
    await assign(redis, 2)
    await window.shows((1, True), (2, False))
    await window.comes_to("open")
    await assign(redis, 3)
    await window.shows((1, True), (2, False), (3, True))


async def test_without_any_socket_it_asks(window: Window, redis: Redis) -> None:
    await window.connect(pollAfterLoss=100)
    window.gateways.swallow()
    await window.comes_to("polling")
    window.server.assigned("batch", 1)
    await window.shows((1, False))
    window.gateways.heal()
    await window.comes_to("open")
    await assign(redis, 2)
    await window.shows((1, False), (2, True))


async def test_a_network_that_goes_and_comes_back(window: Window, redis: Redis) -> None:
    await window.connect()
    await window.browser.has_network(there=False)
    await window.comes_to("connecting")
    await window.browser.has_network()
    await window.comes_to("open")
    await assign(redis, 1)
    await window.shows((1, True))


async def test_a_page_that_freezes_leaves_its_socket_and_comes_back(window: Window, redis: Redis) -> None:
    await window.connect()
    await assign(redis, 1)
    await window.shows((1, True))
    await window.browser.stands_still()

    async def left() -> bool:
        return await subscribers(redis, "alice") == 0

    await until(left)
    await assign(redis, 2)
    await window.browser.stands_still(still=False)
    await window.shows((1, True), (2, False))


async def test_a_page_that_comes_back_from_the_back_forward_cache_learns_what_it_missed(
    window: Window, redis: Redis
) -> None:
    await window.connect()
    await assign(redis, 1)
    await window.shows((1, True))
    await window.browser.script(
        "addEventListener('pageshow', (event) => { globalThis.kept = event.persisted; });"
        "location.assign('/elsewhere');"
    )

    async def left() -> bool:
        return await subscribers(redis, "alice") == 0

    await until(left)
    await assign(redis, 2)
    await window.browser.back()
    # A page that was loaded anew would not know this.
    assert await window.browser.script("return globalThis.kept") is True
    await window.shows((1, True), (2, False))
    await window.comes_to("open")
    await assign(redis, 3)
    await window.shows((1, True), (2, False), (3, True))
