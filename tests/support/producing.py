"""Records written to Kafka, and how far a group has committed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

Value = Mapping[str, Any] | bytes | None


async def produce(
    bootstrap: str, topic: str, *values: Value, key: str | None = None, partition: int | None = None
) -> None:
    """Write records to a topic, one after the other; a key, or its number, puts all into one partition."""
    placed: dict[str, Any] = {} if partition is None else {"partition": partition}

    def send() -> None:
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        for value in values:
            body = json.dumps(value) if isinstance(value, Mapping) else value
            producer.produce(topic, body, key, **placed)
        assert producer.flush(30) == 0

    await asyncio.to_thread(send)


async def committed(bootstrap: str, group: str, topic: str, partitions: int = 1) -> Sequence[int]:
    """The offsets that a group has committed, by partition; negative where it has none."""

    def ask() -> Sequence[int]:
        wanted = [TopicPartition(topic, partition) for partition in range(partitions)]
        admin = AdminClient({"bootstrap.servers": bootstrap})
        (answer,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)]).values()
        found = answer.result(30).topic_partitions or []
        return [part.offset for part in sorted(found, key=lambda part: part.partition)]

    return await asyncio.to_thread(ask)
