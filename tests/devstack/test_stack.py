from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from outbox.devstack import running_stack
from outbox.errors import DevstackError
from outbox.settings import Settings
from tests.support.kafka import Topics
from tests.support.postgres import Cluster

pytestmark = pytest.mark.slow


async def test_starts_what_settings_do_not_name(redis_url: str, kafka: Topics) -> None:
    given = Settings(redis={"url": redis_url}, kafka={"bootstrap_servers": kafka.bootstrap})
    said: list[str] = []
    async with running_stack(given, keep=None, report=lambda name, _: said.append(name)) as stack:
        assert list(stack.local) == ["postgres"]
        assert set(said) == {"postgres"}
        assert stack.settings.sink_names == ("kafka", "redis")
        environment = stack.environment()
    assert environment["OUTBOX_REDIS_URL"] == redis_url
    assert environment["OUTBOX_KAFKA_BOOTSTRAP_SERVERS"] == kafka.bootstrap
    assert environment["OUTBOX_DATABASE_URL"].startswith("postgresql://")


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """One that the user PostgreSQL runs as may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


async def test_continues_from_what_was_kept(shared_folder: Path) -> None:
    async with running_stack(Settings(), keep=shared_folder, report=_quiet) as stack:
        environment = stack.environment()
        await Cluster(environment["OUTBOX_DATABASE_URL"]).execute("CREATE TABLE kept ()")
        await Topics(environment["OUTBOX_KAFKA_BOOTSTRAP_SERVERS"]).create("kept")
        async with Redis.from_url(environment["OUTBOX_REDIS_URL"]) as client:
            await client.set("kept", "1")
    async with running_stack(Settings(), keep=shared_folder, report=_quiet) as stack:
        environment = stack.environment()
        await Cluster(environment["OUTBOX_DATABASE_URL"]).execute("TABLE kept")
        assert await Topics(environment["OUTBOX_KAFKA_BOOTSTRAP_SERVERS"]).read("kept") == []
        async with Redis.from_url(environment["OUTBOX_REDIS_URL"]) as client:
            assert await client.get("kept") == b"1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops its rights")
async def test_says_that_a_folder_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DevstackError, match=r"initdb failed .* as \w+: .*Permission denied"):
        async with running_stack(Settings(), keep=tmp_path, report=_quiet):
            pass


def _quiet(_name: str, _text: str) -> None:
    pass
