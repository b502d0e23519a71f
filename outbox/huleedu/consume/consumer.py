"""A consumer's life: it connects to Kafka, works until that is lost, connects again; beside it, the upkeep.

An offset is committed after the transaction that it stands for.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.errors import describe
from outbox.huleedu.consume.fetching import Fetching
from outbox.huleedu.consume.holds import Holds
from outbox.huleedu.consume.metrics import ConsumerMetrics
from outbox.huleedu.consume.offsets import COMMIT_SECONDS
from outbox.huleedu.consume.receiver import Receiver
from outbox.huleedu.consume.settings import ConsumerSettings
from outbox.huleedu.consume.upkeep import Chore, Upkeep
from outbox.huleedu.consume.watch import Watch
from outbox.logs import Throttle
from outbox.policy import Backoff
from outbox.sinks.kafka import connection_options

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_FETCH_BYTES = 256 * 1_024
"""Of one partition: what comes again after a crash is at most this much."""
_METADATA_SECONDS = 10.0
"""A topic or partition that is made later is seen within this time."""
_AT_ONCE = 2
"""So many partitions' sets: one is prepared while another is with the database. Of more each would only wait
for the others' turns, with its locks held, and sets would have to be ever smaller to take no longer."""
_BEYOND_SESSION_SECONDS = 5.0
"""A request may take as long as a rebalance, which is a session, and this; then its connection is dead."""


class Consumer:
    """Consumes the receiver's topics until it is told to stop."""

    def __init__(
        self,
        settings: ConsumerSettings,
        engine: AsyncEngine,
        receiver: Receiver,
        metrics: ConsumerMetrics,
        chores: Sequence[Chore] = (),
    ) -> None:
        self._settings = settings
        self._receiver = receiver
        self._metrics = metrics
        self._options = _options(settings)
        self._upkeep = Upkeep(settings, engine, receiver, metrics, chores)
        self._backoff = Backoff(0.1, settings.retry_longest_seconds)
        self._throttle = Throttle()
        self._stopping = asyncio.Event()
        self._holds = Holds(settings.retry_longest_seconds, metrics)
        self._fetching: Fetching | None = None
        self._kafka_trouble: str | None = "not connected yet"

    def stop(self) -> None:
        """Ends `run`: the records under way are finished, their offsets committed, the group left."""
        self._stopping.set()

    def trouble(self) -> list[str]:
        """Returns what keeps it from consuming: Kafka, or the partitions that wait; a line each."""
        held, kafka = self._holds.lines(), self._kafka_trouble
        if kafka is None and not (self._fetching and self._fetching.joined):
            kafka = "not in its consumer group yet"
        return held if kafka is None else [f"kafka: {kafka}", *held]

    async def run(self) -> None:
        """Consumes until `stop`; waits for a Kafka or a database that is down."""
        async with asyncio.TaskGroup() as group:
            upkeep = group.create_task(self._upkeep.run())
            failures = 0
            while not self._stopping.is_set():
                began = time.monotonic()
                await self._connect_and_work()
                # Not by a connection alone: who has no right to the group or a topic is refused after it.
                lasted = time.monotonic() - began > self._settings.retry_longest_seconds
                failures = 1 if lasted else failures + 1
                await self._wait(self._backoff.delay(failures, random.random()))  # noqa: S311
            upkeep.cancel()

    async def _connect_and_work(self) -> None:
        """Works until it is to stop, or Kafka is lost."""
        self._fetching = None
        try:
            async with self._connected() as (kafka, self._fetching):
                self._tell(None)
                await self._work(kafka, self._fetching)
        except (KafkaError, OSError) as error:
            self._tell(describe(error))
            if self._throttle.passes(("kafka", type(error))):
                _log.warning("consumer.waiting", for_="kafka", reason=self._kafka_trouble)
        finally:
            self._metrics.forget(self._receiver.topics)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[AIOKafkaConsumer, Fetching]]:
        kafka = AIOKafkaConsumer(**self._options)
        at_once = max(1, self._settings.database_connections // 2)
        fetching = Fetching(kafka, self._receiver, self._holds, at_once, self._stopping)
        try:
            await self._unless_stopping(kafka.start())
            # Not before, because `start` would wait for each topic that does not exist.
            kafka.subscribe(self._receiver.topics, listener=fetching)
            yield kafka, fetching
        finally:
            with suppress(TimeoutError, KafkaError):
                async with asyncio.timeout(COMMIT_SECONDS):
                    await kafka.stop()

    async def _work(self, kafka: AIOKafkaConsumer, fetching: Fetching) -> None:
        watch = Watch(kafka, fetching, self._receiver.topics, self._metrics)
        tasks = [asyncio.create_task(watch.run(self._tell)), asyncio.create_task(fetching.offsets.run())]
        try:
            await fetching.run(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await fetching.offsets.commit()

    def _tell(self, trouble: str | None) -> None:
        self._kafka_trouble = trouble

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
    session = settings.kafka_session_timeout_seconds
    return {
        "bootstrap_servers": settings.kafka.bootstrap_servers,
        "client_id": settings.kafka.client_id,
        "group_id": settings.kafka_group,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "max_partition_fetch_bytes": _FETCH_BYTES,
        "session_timeout_ms": int(session * 1_000),
        "heartbeat_interval_ms": int(session * 1_000 / 4),
        "request_timeout_ms": int((session + _BEYOND_SESSION_SECONDS) * 1_000),
        "metadata_max_age_ms": int(_METADATA_SECONDS * 1_000),
        **connection_options(settings.kafka, prefix=f"{settings.prefix}KAFKA"),
    }
