"""All of HuleEdu in this process, around the page: relay, ELS, RAS, gateway. And windows that open it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from outbox import Settings
from outbox.devstack import Valkey
from outbox.devstack.server import free_port
from outbox.huleedu.els.service import Els
from outbox.huleedu.els.settings import ElsSettings
from outbox.huleedu.events import TOPICS
from outbox.huleedu.gateway import Gateway
from outbox.huleedu.page import Page
from outbox.huleedu.ras import Ras
from outbox.relay import Relay
from outbox.settings import KafkaSettings, RedisSettings
from tests.support.browser import Browser, browsing
from tests.support.gateway import settings as gateway_settings
from tests.support.gateway import until
from tests.support.huleedu import ras_settings
from tests.support.kafka import Topics
from tests.support.page import page_settings

OpenWindow = Callable[..., Awaitable[Browser]]
StartPage = Callable[..., Awaitable[Page]]


@pytest.fixture
async def start_page(huleedu_database: str) -> AsyncIterator[StartPage]:
    """Starts the page's server with other settings: `await start_page(file_bytes=10)`."""
    async with AsyncExitStack() as stack:

        async def start(**changed: Any) -> Page:
            settings = page_settings(**{"database_url": huleedu_database, **changed})
            return await stack.enter_async_context(Page(settings))

        yield start


class HuleEdu:
    """What runs: everything in this process, on a Redis of its own that may go away."""

    _page: Page

    def __init__(self, redis: Valkey, page: Mapping[str, Any]) -> None:
        self.redis = redis
        self.url = f"http://127.0.0.1:{page['port']}"
        """Of the page."""
        self._settings = page

    async def start_page(self, **changed: Any) -> None:
        """Serve the page, with other settings."""
        self._page = Page(page_settings(**{**self._settings, **changed}))
        await self._page.__aenter__()

    async def stop_page(self) -> None:
        """Serve it no more."""
        await self._page.__aexit__()


@pytest.fixture
async def huleedu(huleedu_database: str, kafka: Topics, own_redis: Valkey) -> AsyncIterator[HuleEdu]:
    """Everything."""
    for topic in TOPICS:
        await kafka.create_if_missing(topic, partitions=3)
    relay = Settings(
        database_url=huleedu_database,
        kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap),
        redis=RedisSettings(url=own_redis.url, stream=True),
    )
    consumer = {"database_url": huleedu_database, "kafka_bootstrap_servers": kafka.bootstrap}
    els = ElsSettings.model_validate({**consumer, "kafka_group": f"els-{uuid4()}", "port": 0})
    ras = ras_settings(
        huleedu_database, kafka_bootstrap_servers=kafka.bootstrap, kafka_group=f"ras-{uuid4()}"
    )
    port = free_port()
    gateway = gateway_settings(
        redis_url=own_redis.url,
        redis_ping_seconds=0.5,
        redis_grace_seconds=0.5,
        allowed_origins=(f"http://127.0.0.1:{port}",),
    )
    async with Relay(relay), Els(els), Ras(ras) as answering, Gateway(gateway) as listening:
        await until(lambda: listening.ready)
        page = {
            "database_url": huleedu_database,
            "port": port,
            "gateway_url": f"ws://127.0.0.1:{listening.port}/ws",
            "ras_url": f"http://127.0.0.1:{answering.port}",
        }
        huleedu = HuleEdu(own_redis, page)
        await huleedu.start_page()
        yield huleedu
        await huleedu.stop_page()


@pytest.fixture
async def open_window(huleedu: HuleEdu, tmp_path: Path) -> AsyncIterator[OpenWindow]:
    """Opens a window and is one of the demo users in it, `await open_window("astrid")`, or nobody yet."""
    async with AsyncExitStack() as stack:

        async def start(user: str) -> Browser:
            window = await stack.enter_async_context(browsing(tmp_path / f"profile-{uuid4()}"))
            await window.look()
            await window.open(huleedu.url)
            await window.shows("#login", "Whose essays are they?")
            if user:
                await window.click(f'#people button[data-user="{user}"]')
                await window.shows("#connection", "Live")
            return window

        yield start
