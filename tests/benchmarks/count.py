"""What arrived in a topic, counted by librdkafka, which shares no code with what sent it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition


@dataclass
class Count:
    """Rows are told apart by the number that their value begins with; it rises within each key."""

    seen: set[int] = field(default_factory=set)
    last: dict[bytes, int] = field(default_factory=dict)
    duplicates: int = 0
    inversions: int = 0

    @property
    def distinct(self) -> int:
        return len(self.seen)

    def add(self, key: bytes, number: int) -> None:
        if number in self.seen:
            self.duplicates += 1
            return
        self.seen.add(number)
        self.inversions += number < self.last.get(key, -1)
        self.last[key] = max(number, self.last.get(key, -1))


def count(bootstrap: str, topic: str) -> Count:
    found = Count()
    settings = {"bootstrap.servers": bootstrap, "group.id": f"count-{uuid4()}", "enable.auto.commit": False}
    with closing(Consumer(settings)) as consumer:
        for message in _read(consumer, topic):
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            assert isinstance(value, bytes)
            found.add(key, int(value[: value.index(b" ")]))
    return found


def _read(consumer: Consumer, topic: str) -> Iterator[Message]:
    parts = [
        TopicPartition(topic, part, OFFSET_BEGINNING)
        for part in consumer.list_topics(topic).topics[topic].partitions
    ]
    left = sum(high - low for low, high in map(consumer.get_watermark_offsets, parts))
    consumer.assign(parts)
    while left:
        messages = consumer.consume(min(left, 10_000), timeout=30.0)
        if not messages:
            raise TimeoutError(f"{left} records of {topic} do not come")
        left -= len(messages)
        for message in messages:
            if error := message.error():
                raise KafkaException(error)
            yield message
