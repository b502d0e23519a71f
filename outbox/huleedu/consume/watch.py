"""Whether Kafka answers, and how far a consumer is behind: asked every few seconds, whatever comes."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from outbox.errors import describe
from outbox.huleedu.consume.fetching import Fetching
from outbox.huleedu.consume.metrics import ConsumerMetrics
from outbox.logs import Throttle

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 3.0
ANSWER_SECONDS = 5.0
"""Kafka counts as away when it does not answer for this long."""


class Watch:
    """Looks after one connection to Kafka; `trouble` is what it last found."""

    def __init__(
        self, kafka: AIOKafkaConsumer, fetching: Fetching, topics: tuple[str, ...], metrics: ConsumerMetrics
    ) -> None:
        self._kafka = kafka
        self._fetching = fetching
        self._topics = topics
        self._metrics = metrics
        self._throttle = Throttle()

    async def run(self, tell: Callable[[str | None], None]) -> None:
        """Looks again and again until it is cancelled; tells each time what keeps Kafka from answering."""
        while True:
            reason = await self._look()
            tell(reason)
            if reason and self._throttle.passes(reason):
                _log.warning("consumer.waiting", for_="kafka", reason=reason)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> str | None:
        """Measures; returns what is wrong, None if nothing is."""
        ours = sorted(self._kafka.assignment())
        reasons = await asyncio.gather(*map(self._behind, ours)) if ours else [await self._answers()]
        behind: dict[str, float] = defaultdict(float)
        for partition, found in zip(ours, reasons, strict=False):
            behind[partition.topic] += math.nan if isinstance(found, str) else found or 0
        for topic in self._topics:
            self._metrics.lag.labels(topic).set(behind[topic])
            self._metrics.assigned.labels(topic).set(sum(each.topic == topic for each in ours))
        told = [each for each in reasons if isinstance(each, str)]
        return told[0] if told else None

    async def _behind(self, partition: TopicPartition) -> int | str:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                ends: dict[TopicPartition, int] = await self._kafka.end_offsets([partition])
                return max(0, ends[partition] - await self._fetching.place(partition))
        except TimeoutError:
            return f"no answer about {partition.topic}-{partition.partition} within {ANSWER_SECONDS:g} s"
        except KafkaError as error:
            return f"{partition.topic}-{partition.partition}: {describe(error)}"

    async def _answers(self) -> str | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._kafka.topics()
        except TimeoutError:
            return f"no answer within {ANSWER_SECONDS:g} s"
        except KafkaError as error:
            return describe(error)
        return None
