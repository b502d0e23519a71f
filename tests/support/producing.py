"""Records written to Kafka, and how far a group has committed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
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


class _Odd(str):
    """The name of a header, in no UTF-8: what other clients send without a question."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff"


async def produce_with_odd_header(bootstrap: str, topic: str, *values: Value, partition: int) -> None:
    """Write records that have a header whose name is no UTF-8."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for value in values:
            batch = producer.create_batch()
            # That of C takes a plain str only.
            batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 100_000)
            body = json.dumps(value).encode()
            batch.append(key=None, value=body, timestamp=None, headers=[(_Odd("odd"), b"")])
            await (await producer.send_batch(batch, topic, partition=partition))
