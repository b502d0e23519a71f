"""The built client in Node against real gateways: what a page would be told."""

from __future__ import annotations

import time

from redis.asyncio import Redis

from outbox.devstack.server import free_port
from outbox.huleedu.gateway import Gateway
from tests.huleedu.client.conftest import QUICK, OpenPage, assign
from tests.huleedu.conftest import StartGateway
from tests.support.gateway import sessions, settings, token, until
from tests.support.page_server import page_server


async def test_a_slot_reaches_the_page(
    start_gateway: StartGateway, redis: Redis, open_page: OpenPage
) -> None:
    gateway = await start_gateway()
    browser = await open_page(gateway.port, token())
    await until(lambda: browser.state == "open")
    await assign(redis, 1)
    await until(lambda: browser.uploads == ["upload-1"])
    assert browser.all("resync")
    assert browser.all("event")[0]["data"]["slot_index"] == 1


async def test_what_a_page_misses_between_two_gateways_it_gets_once(
    start_gateway: StartGateway, redis_url: str, redis: Redis, open_page: OpenPage
) -> None:
    port = free_port()
    async with Gateway(settings(redis_url=redis_url, port=port)) as first:
        await until(lambda: first.ready)
        browser = await open_page(port, token())
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
    assert browser.all("resync")


async def test_an_expired_token_is_replaced_and_a_bad_one_ends_it(
    start_gateway: StartGateway, redis: Redis, open_page: OpenPage
) -> None:
    gateway = await start_gateway()
    short = token(exp=int(time.time()) - 8)
    browser = await open_page(gateway.port, short, token(), timing={**QUICK, "stable": 1})
    await until(lambda: len(browser.all("token")) == 2 and browser.state == "open")
    await assign(redis, 1)
    await until(lambda: browser.uploads == ["upload-1"])
    bad = [token(aud="another"), token(aud="yet another")]
    refused = await open_page(gateway.port, *bad)
    await until(lambda: refused.state == "stopped")
    assert len(refused.all("token")) == 2
    assert refused.all("status")[-1] == {"state": "stopped", "reason": "claims", "code": 4401}


async def test_without_a_gateway_the_page_asks_its_server(
    start_gateway: StartGateway, redis: Redis, open_page: OpenPage
) -> None:
    port = free_port()
    async with page_server() as server:
        server.essays["batch"] = []
        poll = {"url": f"http://127.0.0.1:{server.port}", "batchIds": ["batch"]}
        browser = await open_page(port, token(), poll=poll)
        await until(lambda: browser.state == "polling" and server.asked)
        server.assigned("batch", 1)
        await until(lambda: browser.uploads == ["upload-1"])
        await start_gateway(port=port)
        await until(lambda: browser.state == "open")
        await assign(redis, 1)
        await assign(redis, 2)
        await until(lambda: browser.uploads == ["upload-1", "upload-2"])
        assert [slot["live"] for slot in browser.all("slot")] == [False, True]


async def test_a_token_is_renewed_on_the_open_socket(
    start_gateway: StartGateway, redis: Redis, open_page: OpenPage
) -> None:
    gateway = await start_gateway(jwt_leeway_seconds=0)
    now = int(time.time())
    short = token(iat=now, exp=now + 8)
    browser = await open_page(gateway.port, short, token(), timing={**QUICK, "renewBefore": 60_000})
    await until(lambda: browser.state == "open")
    [session] = sessions(gateway)
    await until(lambda: session.identity.expires_at > now + 8)
    assert sessions(gateway) == {session}
    await assign(redis, 1)
    await until(lambda: browser.uploads == ["upload-1"])
    assert [status["state"] for status in browser.all("status")] == ["connecting", "open"]


async def test_a_page_whose_cursor_is_not_known_any_more_asks(
    start_gateway: StartGateway, open_page: OpenPage
) -> None:
    gateway = await start_gateway()
    async with page_server() as server:
        server.assigned("batch", 1)
        poll = {"url": f"http://127.0.0.1:{server.port}", "batchIds": ["batch"]}
        timing = {**QUICK, "resyncWithin": 100}
        browser = await open_page(gateway.port, token(), poll=poll, lastMessageId="trimmed", timing=timing)
        await until(lambda: browser.uploads == ["upload-1"])
        await until(lambda: browser.all("resync") == [True])
        assert browser.all("event") == []
