"""Partitions that wait, because the next record in them failed for a reason that a retry may heal."""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from dataclasses import dataclass

import structlog
from aiokafka import TopicPartition

from outbox.errors import describe
from outbox.huleedu.consume.metrics import ConsumerMetrics
from outbox.huleedu.database import DATABASE_ERRORS
from outbox.logs import Throttle
from outbox.policy import Backoff

_log = structlog.get_logger(__name__)

_LASTING_SECONDS = 60.0
"""What fails for longer is told as an error: it does not seem to heal by itself."""


@dataclass(slots=True)
class _Hold:
    since: float
    failures: int
    until: float
    reason: str


class Holds:
    """Which partitions wait, each until its time, which comes later with each failure."""

    def __init__(self, longest: float, metrics: ConsumerMetrics) -> None:
        self._backoff = Backoff(0.1, longest)
        self._metrics = metrics
        self._throttle = Throttle()
        self._held: dict[TopicPartition, _Hold] = {}

    def lines(self) -> list[str]:
        """Returns which partitions wait and why, a line each."""
        return [f"{each.topic}-{each.partition}: {hold.reason}" for each, hold in self._held.items()]

    def put(self, partition: TopicPartition, offset: int, error: Exception) -> None:
        """Has a partition wait before the record at this offset, and says so."""
        now = time.monotonic()
        hold = self._held.get(partition) or _Hold(now, 0, now, "")
        hold.failures += 1
        hold.reason = describe(error)
        delay = self._backoff.delay(hold.failures, random.random())  # noqa: S311
        hold.until = now + delay
        self._held[partition] = hold
        self._metrics.retries.labels(partition.topic).inc()
        self._count()
        self._say(partition, offset, hold, delay, error)

    def over(self) -> list[TopicPartition]:
        """Returns the partitions that have waited long enough; they are tried again."""
        now = time.monotonic()
        return [partition for partition, hold in self._held.items() if hold.until <= now]

    def waits(self, partition: TopicPartition) -> bool:
        """Returns True while a partition has to wait."""
        hold = self._held.get(partition)
        return hold is not None and hold.until > time.monotonic()

    def release(self, partition: TopicPartition) -> None:
        """Forgets why a partition waited: its record is done with."""
        if self._held.pop(partition, None):
            self._count()

    def keep_only(self, ours: Collection[TopicPartition]) -> None:
        """Forgets the partitions that are another's."""
        for partition in self._held.keys() - set(ours):
            self.release(partition)

    def _count(self) -> None:
        self._metrics.held.set(len(self._held))

    def _say(
        self, partition: TopicPartition, offset: int, hold: _Hold, delay: float, error: Exception
    ) -> None:
        lasting = time.monotonic() - hold.since
        stuck = lasting > _LASTING_SECONDS
        if not self._throttle.passes((partition, type(error), stuck)):
            return
        (_log.error if stuck else _log.warning)(
            "consumer.stuck" if stuck else "event.retried",
            topic=partition.topic,
            partition=partition.partition,
            offset=offset,
            failures=hold.failures,
            lasting=round(lasting, 1),
            delay=round(delay, 3),
            reason=hold.reason,
            exc_info=None if isinstance(error, DATABASE_ERRORS) else error,
        )
