"""What tests do with a Kafka: make topics, change them, and read them back by librdkafka.

The reader shares no code with the client that the outbox sends with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import closing
from functools import cached_property
from typing import Any, NamedTuple, cast
from uuid import uuid4

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from tests.support.waiting import PATIENCE, until


class Record(NamedTuple):
    """One record as a consumer gets it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    timestamp_ms: int


class Topics:
    """The topics of the Kafka at `bootstrap`."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    async def create(
        self,
        name: str | None = None,
        *,
        partitions: int = 1,
        replicas: list[list[int]] | None = None,
        **config: str | int,
    ) -> str:
        """Make a topic, with a unique name unless it is given; returns the name once it can be used.

        Dots in the names of settings are written as underscores: `max_message_bytes=1000`.
        `replicas` says for each partition which nodes have it, its leader first.
        """
        topic = NewTopic(
            name or f"test.{uuid4().hex[:12]}",
            num_partitions=len(replicas) if replicas else partitions,
            config=_dotted(config),
        )
        if replicas:
            topic.replica_assignment = replicas
        await _all(self._admin.create_topics([topic]))
        # The controller knows it; wait until the brokers do.
        await until(lambda: self._is_led(topic.topic))
        return topic.topic

    async def create_if_missing(self, name: str, *, partitions: int = 1) -> None:
        """Make a topic whose name is fixed, unless another test did."""
        try:
            await self.create(name, partitions=partitions)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    async def configure(self, topic: str, **config: str | int) -> None:
        """Change settings of a topic."""
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in _dotted(config).items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        await _all(self._admin.incremental_alter_configs([resource]))

    async def delete(self, topic: str) -> None:
        """Delete a topic."""
        await _all(self._admin.delete_topics([topic]))

    async def names(self) -> set[str]:
        """Which topics there are."""
        return set((await asyncio.to_thread(self._admin.list_topics, timeout=PATIENCE)).topics)

    async def leaders(self, topic: str) -> dict[int, int]:
        """Which node leads each partition; -1 while none does."""
        found = await asyncio.to_thread(self._admin.list_topics, topic, timeout=PATIENCE)
        return {number: part.leader for number, part in found.topics[topic].partitions.items()}

    async def read(self, topic: str, count: int | None = None, *, deadline: float = PATIENCE) -> list[Record]:
        """What the topic holds from its beginning, in the order it came, each partition in its order.

        Up to what is its end now or, with `count`, that many records as soon as they are there.
        Raises TimeoutError after `deadline` seconds.
        """
        return await asyncio.to_thread(self._read, topic, count, deadline)

    @cached_property
    def _admin(self) -> AdminClient:
        # Silent about a broker that the test has killed.
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    async def _is_led(self, topic: str) -> bool:
        return min((await self.leaders(topic)).values(), default=-1) >= 0

    def _read(self, topic: str, count: int | None, deadline: float) -> list[Record]:
        settings = {
            "bootstrap.servers": self.bootstrap,
            "group.id": f"reader-{uuid4()}",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 50,
        }
        until = time.monotonic() + deadline
        with closing(Consumer(settings)) as consumer:
            partitions = consumer.list_topics(topic, timeout=deadline).topics[topic].partitions
            parts = [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions]
            if count is None:
                ends = [consumer.get_watermark_offsets(part, timeout=deadline) for part in parts]
                count = sum(high - low for low, high in ends)
            consumer.assign(parts)
            records: list[Record] = []
            while len(records) < count:
                if time.monotonic() > until:
                    raise TimeoutError(f"{topic} has {len(records)} of {count} records after {deadline:g} s")
                for message in consumer.consume(count - len(records), timeout=0.1):
                    if error := message.error():
                        raise KafkaException(error)
                    records.append(_record(message))
            return records


async def _all(results: Mapping[Any, Future[None]]) -> None:
    for done in results.values():
        await asyncio.wrap_future(done)


def _record(message: Message) -> Record:
    headers = {str(name): bytes(value) for name, value in cast("list[Any]", message.headers() or [])}
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return Record(
        partition, offset, _bytes(message.key()), _bytes(message.value()), headers, message.timestamp()[1]
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _dotted(config: dict[str, str | int]) -> dict[str, str]:
    return {key.replace("_", "."): str(value) for key, value in config.items()}
