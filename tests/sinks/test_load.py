from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import pytest
from pydantic import SecretStr

from outbox.errors import SettingsError
from outbox.message import Delivery, Result, Sent
from outbox.settings import KafkaSettings, RedisSettings, Settings, SinkSettings
from outbox.sinks import load
from outbox.sinks.kafka import KafkaSink
from outbox.sinks.redis import RedisSink


class Own:
    """A sink of one's own."""

    def __init__(self, options: Mapping[str, str]) -> None:
        if "url" not in options:
            raise SettingsError("OUTBOX_HOOK_URL is not set")
        self.url = options["url"]

    async def start(self) -> None: ...

    async def send(self, deliveries: Sequence[Delivery]) -> Sequence[Result]:
        return [Sent() for _ in deliveries]

    async def stop(self) -> None: ...


def settings(sinks: str = "", **options: Mapping[str, str]) -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers="kafka:9092"),
        redis=RedisSettings(url=SecretStr("redis://redis")),
        own={"redis": SinkSettings(send_timeout_seconds=3)},
        sinks=sinks,
        options=options,
    )


def test_the_built_in_ones() -> None:
    kafka, redis = load("kafka", settings()), load("redis", settings())
    assert isinstance(kafka, KafkaSink)
    assert isinstance(redis, RedisSink)
    assert (kafka._timeout, redis._timeout) == (10, 3)


@pytest.mark.parametrize(("name", "needs"), [("kafka", "aiokafka.codec"), ("redis", "redis.asyncio")])
def test_without_the_client_library(name: str, needs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [module for module in sys.modules if module.startswith(f"outbox.sinks.{name}")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, needs, None)
    with pytest.raises(SettingsError, match=rf"pip install 'outbox-relay\[{name}\]'"):
        load(name, settings())


def test_one_of_your_own() -> None:
    sink = load("hook", settings(f"hook={__name__}:Own", hook={"url": "https://example.org"}))
    assert isinstance(sink, Own)
    assert sink.url == "https://example.org"
    with pytest.raises(SettingsError, match="OUTBOX_HOOK_URL"):
        load("hook", settings(f"hook={__name__}:Own"))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("no_such_module:Sink", "OUTBOX_SINKS=hook=no_such_module:Sink: No module named 'no_such_module'"),
        ("json:Sink", "OUTBOX_SINKS=hook=json:Sink: module 'json' has no attribute 'Sink'"),
    ],
)
def test_what_is_not_there(path: str, says: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load("hook", settings(f"hook={path}"))
    assert str(raised.value) == says


def test_a_sink_that_nobody_named() -> None:
    with pytest.raises(SettingsError, match="OUTBOX_SINKS=hook=module:Class"):
        load("hook", settings())
