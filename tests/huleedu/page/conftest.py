"""All of HuleEdu in this process, around the page: relay, ELS, RAS, gateway. And windows that open it."""

from __future__ import annotations

import shutil
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
from outbox.huleedu.events import ESSAYS_REGISTERED, SLOT_ASSIGNED, TOPICS, EssaySlotAssignedV1
from outbox.huleedu.gateway import Gateway
from outbox.huleedu.page import Page
from outbox.huleedu.ras import Ras
from outbox.relay import Relay
from outbox.settings import KafkaSettings, RedisSettings, SinkSettings
from tests.support import servers
from tests.support.browser import Browser, browsing
from tests.support.gateway import settings as gateway_settings
from tests.support.gateway import until
from tests.support.huleedu import content, essay_ids, event, ras_settings, record, registration
from tests.support.kafka import Topics
from tests.support.node import npm
from tests.support.page import page_settings

AXE = Path(__file__).with_name("axe")

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


@pytest.fixture
async def ras(huleedu_database: str) -> AsyncIterator[Ras]:
    """A RAS that knows `batch-1` of alice, with a file in one of its slots."""
    async with Ras(ras_settings(huleedu_database)) as ras:
        upload = content(batch_id="batch-1")
        assigned = EssaySlotAssignedV1(
            batch_id="batch-1",
            essay_id=essay_ids("batch-1", 3)[0],
            file_upload_id=upload.file_upload_id,
            text_storage_id=upload.text_storage_id,
            original_file_name="essay.txt",
            slot_index=0,
            correlation_id=upload.correlation_id,
        )
        registered = event(ESSAYS_REGISTERED, registration(user_id="alice"))
        await ras.receiver.receive(record(ESSAYS_REGISTERED, registered))
        await ras.receiver.receive(record(SLOT_ASSIGNED, event(SLOT_ASSIGNED, assigned)))
        yield ras


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
        own={"redis": SinkSettings(gap_note='{"event":"resync_required"}')},
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


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, which finds what keeps people from using a page."""
    folder = tmp_path_factory.mktemp("axe") / "axe"
    shutil.copytree(AXE, folder, ignore=shutil.ignore_patterns("node_modules"))
    installed = npm(folder, "ci", "--no-progress")
    if installed.returncode:
        servers.missing(f"npm could not install axe-core: {installed.stdout[-500:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


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
