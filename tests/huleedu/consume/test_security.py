"""A consumer of a broker that asks who one is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.errors import SettingsError
from outbox.huleedu.consume import (
    Consumer,
    ConsumerMetrics,
    ConsumerSettings,
    Effect,
    Handler,
    Incoming,
    Receiver,
)
from outbox.huleedu.consume import consumer as life
from outbox.huleedu.database import engine_of
from outbox.huleedu.events.fields import Model
from tests.support.huleedu import event
from tests.support.kafka import Topics
from tests.support.producing import produce
from tests.support.secured_kafka import PASSWORD, SecuredKafka
from tests.support.waiting import until


class Settings(ConsumerSettings):
    prefix = "TEST_"

    service_name: str = "test"


def with_a_certificate(broker: SecuredKafka) -> dict[str, Any]:
    return {
        "kafka_bootstrap_servers": broker.tls,
        "kafka_security_protocol": "SSL",
        "kafka_ssl_ca_file": broker.certificates.ca,
        "kafka_ssl_cert_file": broker.certificates.client,
        "kafka_ssl_key_file": broker.certificates.client_key,
    }


def with_a_password(broker: SecuredKafka) -> dict[str, Any]:
    return {
        "kafka_bootstrap_servers": broker.sasl,
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_sasl_username": "relay",
        "kafka_sasl_password": PASSWORD,
        "kafka_ssl_ca_file": broker.certificates.ca,
    }


@asynccontextmanager
async def consuming(settings: Settings, topic: str) -> AsyncIterator[tuple[Consumer, list[str]]]:
    """A consumer at work within the block, and the ids of the events that it was given."""
    engine = engine_of(settings)
    given: list[str] = []

    async def apply(_: AsyncConnection, events: Sequence[Incoming[Model]]) -> list[Effect]:
        given.extend(str(each.event.event_id) for each in events)
        return [Effect("applied") for _ in events]

    metrics = ConsumerMetrics("test", CollectorRegistry())
    receiver = Receiver(engine, settings.kafka_group, [Handler(topic, Model, apply)], metrics)
    consumer = Consumer(settings, engine, receiver, metrics)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run())
        try:
            yield consumer, given
        finally:
            consumer.stop()
    await engine.dispose()


@pytest.mark.parametrize("access", [with_a_certificate, with_a_password])
async def test_whoever_can_show_who_it_is_consumes(
    secured: SecuredKafka, huleedu_database: str, access: Any
) -> None:
    topic = await Topics(secured.url).create(f"allowed.{uuid4()}")
    settings = Settings(database_url=huleedu_database, kafka_group=topic, **access(secured))
    told = event(topic, {})
    await produce(secured.url, topic, told)
    async with consuming(settings, topic) as (_, given):

        async def came() -> bool:
            return given == [told["event_id"]]

        await until(came)


async def test_without_the_certificate_that_the_broker_asks_for(
    secured: SecuredKafka, huleedu_database: str
) -> None:
    access = with_a_certificate(secured) | {"kafka_ssl_cert_file": None, "kafka_ssl_key_file": None}
    settings = Settings(database_url=huleedu_database, kafka_group="allowed", **access)
    async with consuming(settings, "allowed") as (consumer, given):

        async def refused() -> bool:
            return "KafkaConnectionError" in str(consumer.trouble())

        await until(refused)
        assert given == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"kafka_ssl_ca_file": Path("/nowhere")}, r"TEST_KAFKA_SSL_CA_FILE=/nowhere: .*No such file"),
        (
            {"kafka_ssl_key_file": Path("/nowhere")},
            r"TEST_KAFKA_SSL_CERT_FILE=.*TEST_KAFKA_SSL_KEY_FILE=",
        ),
    ],
)
async def test_files_that_are_wrong_are_told_by_their_variables(
    secured: SecuredKafka, huleedu_database: str, changed: dict[str, Any], reason: str
) -> None:
    access = with_a_certificate(secured) | changed
    settings = Settings(database_url=huleedu_database, kafka_group="allowed", **access)
    with pytest.raises(SettingsError, match=reason):
        async with consuming(settings, "allowed"):
            pass


async def test_without_the_right_to_its_group_it_says_so_and_asks_ever_more_rarely(
    secured: SecuredKafka, huleedu_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    class Counted(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
        async def start(self) -> None:
            tries.append(asyncio.get_running_loop().time())
            await super().start()

    monkeypatch.setattr(life, "AIOKafkaConsumer", Counted)
    monkeypatch.setattr("random.random", lambda: 0.0)  # The longest waits.
    topic = await Topics(secured.url).create(f"allowed.{uuid4()}")
    settings = Settings(
        database_url=huleedu_database,
        kafka_group="forbidden",
        retry_longest_seconds=30.0,  # However long a try lasts on a slow machine, none is taken for work.
        **with_a_password(secured),
    )
    async with consuming(settings, topic) as (consumer, given):

        async def asked() -> bool:
            return len(tries) >= 4

        await until(asked)
        # 0.1, 0.2 and 0.4 s, and so on: not ten times a second.
        assert tries[3] - tries[0] >= 0.7

        async def says_so() -> bool:
            return "GroupAuthorizationFailedError" in str(consumer.trouble())

        await until(says_so)  # Between two tries it may be joining.
        assert given == []
