"""The loop around Kafka: fetch, have each record applied, commit what is done with.

An offset is committed after the transaction that it stands for. Where a record fails for a reason
that a retry may heal, its partition waits there, and the others go on; so nothing is ever committed past it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox import prune_inbox
from outbox.errors import describe
from outbox.huleedu.consume.metrics import ConsumerMetrics
from outbox.huleedu.consume.receiver import Receiver
from outbox.huleedu.consume.settings import ConsumerSettings
from outbox.huleedu.database import DATABASE_ERRORS
from outbox.logs import Throttle
from outbox.policy import Backoff
from outbox.sinks.kafka import connection_options

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_FETCH_SECONDS = 0.2
_FETCH_BYTES = 256 * 1_024
"""Of one partition: what comes again after a crash is at most this much."""
_KAFKA_SECONDS = 5.0
"""Committing and leaving take no longer, whatever the broker does."""
_METADATA_SECONDS = 10.0
"""A topic or partition that is made later is seen within this time."""
_PRUNE_SECONDS = 3_600.0
_PRUNE_ROWS = 10_000


@dataclass(slots=True)
class _Hold:
    """Where a partition waits, and until when."""

    failures: int
    until: float
    reason: str


class Consumer:
    """Consumes the receiver's topics until it is told to stop."""

    def __init__(
        self, settings: ConsumerSettings, engine: AsyncEngine, receiver: Receiver, metrics: ConsumerMetrics
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._receiver = receiver
        self._metrics = metrics
        self._options = _options(settings)
        self._backoff = Backoff(0.1, settings.retry_longest_seconds)
        self._throttle = Throttle()
        self._stopping = asyncio.Event()
        self._held: dict[TopicPartition, _Hold] = {}
        self._done: dict[TopicPartition, int] = {}
        self._kafka_trouble: str | None = "not connected yet"

    def stop(self) -> None:
        """Ends `run`: the records under way are finished, their offsets committed, the group left."""
        self._stopping.set()

    def trouble(self) -> list[str]:
        """Returns what keeps it from consuming: Kafka, or the partitions that wait; a line each."""
        held = [f"{tp.topic}-{tp.partition}: {hold.reason}" for tp, hold in self._held.items()]
        return held if self._kafka_trouble is None else [f"kafka: {self._kafka_trouble}", *held]

    async def run(self) -> None:
        """Consumes until `stop`; waits for a Kafka or a database that is down."""
        async with asyncio.TaskGroup() as group:
            pruning = group.create_task(self._prune())
            failures = 0
            while not self._stopping.is_set():
                try:
                    async with self._connected() as kafka:
                        failures, self._kafka_trouble = 0, None
                        await self._consume(kafka)
                except (KafkaError, OSError) as error:
                    failures += 1
                    self._kafka_trouble = describe(error)
                    if self._throttle.passes(("kafka", type(error))):
                        _log.warning("consumer.waiting", for_="kafka", reason=self._kafka_trouble)
                    await self._wait(self._backoff.delay(failures, random.random()))  # noqa: S311
            pruning.cancel()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AIOKafkaConsumer]:
        kafka = AIOKafkaConsumer(**self._options)
        try:
            await self._unless_stopping(kafka.start())
            # Not before, because `start` would wait for each topic that does not exist.
            kafka.subscribe(self._receiver.topics)
            yield kafka
        finally:
            with suppress(TimeoutError, KafkaError):
                async with asyncio.timeout(_KAFKA_SECONDS):
                    await kafka.stop()

    async def _consume(self, kafka: AIOKafkaConsumer) -> None:
        self._held.clear()
        self._done.clear()
        while not self._stopping.is_set():
            self._release(kafka)
            fetched = await self._unless_stopping(kafka.getmany(timeout_ms=int(_FETCH_SECONDS * 1_000)))
            async with asyncio.TaskGroup() as group:
                for partition, records in (fetched or {}).items():
                    group.create_task(self._work_off(kafka, partition, records))
            await self._commit(kafka)

    async def _work_off(
        self, kafka: AIOKafkaConsumer, partition: TopicPartition, records: Sequence[ConsumerRecord]
    ) -> None:
        """Applies the records of a partition one after the other, up to the first that has to wait."""
        for record in records:
            if self._stopping.is_set():
                return
            try:
                await self._receiver.receive(record)
            except Exception as error:  # noqa: BLE001 (whatever it was, the partition waits for it)
                self._hold(kafka, partition, record, error)
                return
            self._held.pop(partition, None)
            self._done[partition] = record.offset + 1

    def _hold(
        self, kafka: AIOKafkaConsumer, partition: TopicPartition, record: ConsumerRecord, error: Exception
    ) -> None:
        failures = self._held[partition].failures + 1 if partition in self._held else 1
        delay = self._backoff.delay(failures, random.random())  # noqa: S311
        self._held[partition] = _Hold(failures, asyncio.get_running_loop().time() + delay, describe(error))
        with suppress(IllegalStateError):  # It may be another's by now.
            kafka.seek(partition, record.offset)
            kafka.pause(partition)
        self._metrics.retries.labels(record.topic).inc()
        self._metrics.held.set(len(self._held))
        if self._throttle.passes((partition, type(error))):
            _log.warning(
                "event.retried",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                failures=failures,
                delay=round(delay, 3),
                reason=describe(error),
                exc_info=None if isinstance(error, DATABASE_ERRORS) else error,
            )

    def _release(self, kafka: AIOKafkaConsumer) -> None:
        """Goes on with the partitions that have waited long enough; forgets those that are another's."""
        ours, now = kafka.assignment(), asyncio.get_running_loop().time()
        self._held = {partition: hold for partition, hold in self._held.items() if partition in ours}
        for partition, hold in self._held.items():
            if hold.until <= now:
                kafka.resume(partition)
        self._metrics.held.set(len(self._held))

    async def _commit(self, kafka: AIOKafkaConsumer) -> None:
        """Commits the offsets of what is done with.

        Where that fails, they are committed later, or the records come again and are dropped.
        """
        ours = kafka.assignment()
        offsets = {partition: offset for partition, offset in self._done.items() if partition in ours}
        if not offsets:
            self._done.clear()
            return
        try:
            async with asyncio.timeout(_KAFKA_SECONDS):
                await kafka.commit(offsets)
        except (KafkaError, TimeoutError) as error:
            if self._throttle.passes(("commit", type(error))):
                _log.warning("consumer.not_committed", reason=describe(error))
        else:
            self._done.clear()

    async def _prune(self) -> None:
        while True:
            with suppress(*DATABASE_ERRORS):  # It is tried again.
                async with self._engine.begin() as connection:
                    age = timedelta(seconds=self._settings.inbox_retention)
                    forgotten = await prune_inbox(connection, self._receiver.consumer, age, limit=_PRUNE_ROWS)
                    if forgotten == _PRUNE_ROWS:
                        continue
            await asyncio.sleep(_PRUNE_SECONDS)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _unless_stopping(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Returns the result of `work`, or None if it is given up because the consumer stops."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.wait((working, stopping))


def _options(settings: ConsumerSettings) -> Mapping[str, Any]:
    return {
        "bootstrap_servers": settings.kafka.bootstrap_servers,
        "client_id": settings.kafka.client_id,
        "group_id": settings.kafka_group,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "max_partition_fetch_bytes": _FETCH_BYTES,
        "session_timeout_ms": int(settings.kafka_session_timeout_seconds * 1_000),
        "heartbeat_interval_ms": int(settings.kafka_session_timeout_seconds * 1_000 / 4),
        "metadata_max_age_ms": int(_METADATA_SECONDS * 1_000),
        **connection_options(settings.kafka, prefix=f"{settings.prefix}KAFKA"),
    }
