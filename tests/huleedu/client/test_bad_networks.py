"""Pages behind networks that let them down: they notice it, and learn of every slot once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
from redis.asyncio import Redis

from tests.huleedu.client.conftest import QUICK, OpenPage, assign, note
from tests.huleedu.conftest import StartGateway
from tests.support.gateway import token, until
from tests.support.network import Network, network
from tests.support.page_server import page_server

TIMING = {
    **QUICK,
    "heartbeat": 1_000,
    "silence": 1_600,
    "handshake": 1_000,
    "pollAfterLoss": 60_000,
    "ask": 500,
}


@pytest.fixture
async def gateways(start_gateway: StartGateway) -> AsyncIterator[Network]:
    """The way to a gateway."""
    gateway = await start_gateway()
    async with network(gateway.port) as way:
        yield way


def swallow(way: Network) -> None:
    """Everything, and then nothing."""
    way.swallow()
    way.swallow(on=False)


FAULTS = {"blackholes": swallow, "cuts": Network.cut, "closes one half": Network.half_close}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_network_that(fault: str, gateways: Network, redis: Redis, open_page: OpenPage) -> None:
    page = await open_page(gateways.port, token(), timing=TIMING)
    await until(lambda: page.state == "open")
    await assign(redis, 1)
    await until(lambda: page.uploads == ["upload-1"])
    FAULTS[fault](gateways)
    await assign(redis, 2)
    await until(lambda: page.uploads == ["upload-1", "upload-2"])
    await until(lambda: page.state == "open")
    await assign(redis, 3)
    await until(lambda: page.uploads == ["upload-1", "upload-2", "upload-3"])
    assert [slot["live"] for slot in page.all("slot")] == [True, False, True]
    assert [slot["recovered"] for slot in page.all("slot")] == [False, True, False]


async def test_a_network_that_delays_longer_than_a_handshake_may_take(
    gateways: Network, open_page: OpenPage
) -> None:
    gateways.delay = 2.0
    page = await open_page(gateways.port, token(), timing=TIMING)
    failed = "no connection can be made"
    await until(lambda: failed in [status["reason"] for status in page.all("status")])
    gateways.heal()
    await until(lambda: page.state == "open")


async def test_while_the_way_to_the_gateway_swallows_everything_the_page_asks(
    gateways: Network, redis: Redis, open_page: OpenPage
) -> None:
    async with page_server() as server:
        server.essays["batch"] = []
        poll = {"url": f"http://127.0.0.1:{server.port}", "batchIds": ["batch"]}
        timing = {**TIMING, "pollAfterLoss": 100}
        page = await open_page(gateways.port, token(), timing=timing, poll=poll)
        await until(lambda: page.state == "open" and server.asked)
        gateways.swallow()
        server.assigned("batch", 1)
        await until(lambda: page.state == "polling" and page.uploads == ["upload-1"])
        gateways.heal()
        await until(lambda: page.state == "open")
        await assign(redis, 1)
        await assign(redis, 2)
        await until(lambda: page.uploads == ["upload-1", "upload-2"])


@pytest.mark.parametrize("trouble", [HTTPStatus.OK, HTTPStatus.BAD_GATEWAY, None])
async def test_a_resync_that_is_owed_is_paid_whatever_answers_meanwhile(
    trouble: HTTPStatus | None, gateways: Network, redis: Redis, open_page: OpenPage
) -> None:
    async with page_server() as server, network(server.port) as way:
        poll = {"url": f"http://127.0.0.1:{way.port}", "batchIds": ["batch"]}
        timing = {**TIMING, "resyncWithin": 100}
        page = await open_page(gateways.port, token(), timing=timing, poll=poll)
        await until(lambda: page.state == "open")
        server.trouble = trouble
        way.swallow(on=trouble is None)
        await note(redis)
        await until(lambda: page.all("resync"))
        gateways.cut()
        await until(lambda: [status["state"] for status in page.all("status")].count("open") == 2)
        server.trouble = None
        way.heal()
        server.assigned("batch", 1)
        await until(lambda: page.uploads == ["upload-1"])
