"""Which records are done with, and the commits of their offsets: one is under way while more is applied."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from outbox.errors import describe
from outbox.logs import Throttle

_log = structlog.get_logger(__name__)

COMMIT_SECONDS = 5.0
"""A commit takes no longer, whatever the broker does."""
_PAUSE_SECONDS = 0.05
"""Between two commits, so that a broker is not asked for every event."""
_AGAIN_SECONDS = 1.0


class Offsets:
    """How far each partition is, and how far is committed. Committed is only what is done with."""

    def __init__(self, kafka: AIOKafkaConsumer) -> None:
        self.reached: dict[TopicPartition, int] = {}
        """The offset after the last record that is done with."""
        self._kafka = kafka
        self._committed: dict[TopicPartition, int] = {}
        self._news = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._throttle = Throttle()

    def done(self, partition: TopicPartition, offset: int) -> None:
        """Takes note that everything before this offset is done with."""
        self.reached[partition] = offset
        self._news.set()

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Forgets partitions that are another's: where they stand is not for us to say."""
        for partition in partitions:
            self.reached.pop(partition, None)
            self._committed.pop(partition, None)

    async def run(self) -> None:
        """Commits what is new, until it is cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            if await self.commit():
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                await asyncio.sleep(_AGAIN_SECONDS)
                self._news.set()

    async def commit(self) -> bool:
        """Commits what is done with; returns False if it has to be tried again.

        What is not committed comes again, and is dropped then.
        """
        async with self._one_at_a_time:
            ours = self._kafka.assignment()
            new = {
                partition: offset
                for partition, offset in self.reached.items()
                if partition in ours and self._committed.get(partition) != offset
            }
            return await self._commit(new) if new else True

    async def _commit(self, offsets: dict[TopicPartition, int]) -> bool:
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._kafka.commit(offsets)
        except (KafkaError, TimeoutError) as error:
            if self._throttle.passes(type(error).__name__):
                _log.warning("consumer.not_committed", reason=describe(error))
            return False
        self._committed |= offsets
        return True
