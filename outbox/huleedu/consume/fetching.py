"""One connection to Kafka: what is fetched of each partition is applied in turn, beside the others.

Where a record fails for a reason that a retry may heal, its partition waits there, and the others go on; so
nothing is ever committed past it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError

from outbox.huleedu.consume.holds import Holds
from outbox.huleedu.consume.offsets import Offsets
from outbox.huleedu.consume.pace import Pace
from outbox.huleedu.consume.reader import Reader
from outbox.huleedu.consume.receiver import Receiver

_FETCH_SECONDS = 0.2


class Fetching(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Fetches, has applied, and takes note of what is done with, until it is told to stop."""

    def __init__(
        self, kafka: AIOKafkaConsumer, receiver: Receiver, holds: Holds, at_once: int, stopping: asyncio.Event
    ) -> None:
        self.joined = False
        """Whether the group has given us our share, be it none."""
        self.offsets = Offsets(kafka)
        self._kafka = kafka
        self._reader = Reader(kafka)
        self._receiver = receiver
        self._holds = holds
        self._turns = asyncio.Semaphore(at_once)
        self._stopping = stopping
        self._pace = Pace()
        self._busy: dict[TopicPartition, asyncio.Task[None]] = {}
        self._begun: dict[TopicPartition, int] = {}
        """The first offset of what was fetched last: of a new partition nothing is done with yet."""

    async def run(self, *others: asyncio.Task[Any]) -> None:
        """Works until it is to stop, or one of the others has ended; finishes what is under way."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                for partition, records in (await self._next(stopping, *others)).items():
                    self._begun[partition] = records[0].offset
                    self._busy[partition] = asyncio.create_task(self._work_off(partition, records))
                for task in others:
                    if task.done():
                        task.result()
        finally:
            stopping.cancel()
            await asyncio.gather(*self._busy.values())

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Commits before others go on with them."""
        await self.offsets.commit()
        self.offsets.forget(revoked)

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Takes note of our share."""
        self.joined = True
        self._reader.begin_anew()
        self._holds.keep_only(assigned)

    async def place(self, partition: TopicPartition) -> int:
        """Returns the offset that is next in a partition of ours."""
        if partition in self._busy or self._holds.waits(partition):
            place = self.offsets.reached.get(partition, self._begun.get(partition))
            if place is not None:  # It may wait since an earlier connection.
                return place
        position: int = await self._kafka.position(partition)
        return position

    async def _next(self, *awaited: asyncio.Future[Any]) -> Mapping[TopicPartition, Sequence[ConsumerRecord]]:
        """Returns what has come of the partitions that nobody works on; soon nothing, if nothing has."""
        self._busy = {partition: task for partition, task in self._busy.items() if not task.done()}
        ours = self._kafka.assignment()
        for partition in self._holds.over():
            if partition in ours:
                self._kafka.resume(partition)
        idle = [each for each in ours if each not in self._busy and not self._holds.waits(each)]
        # Without any of ours it is asked too: that tells why there is none, such as a right that is missing.
        fetching = self._reader.some(idle, _FETCH_SECONDS) if idle or not ours else _nothing()
        getting = asyncio.ensure_future(fetching)
        try:
            await asyncio.wait((getting, *awaited, *self._busy.values()), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not getting.done():
                # Nothing is lost by it: records are taken and given back in one step.
                getting.cancel()
                await asyncio.wait((getting,))
        return {} if getting.cancelled() else getting.result()

    async def _work_off(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Applies the records of a partition, set by set, up to the first that has to wait."""
        place = records[0].offset

        def done(record: ConsumerRecord) -> None:
            nonlocal place
            place = record.offset + 1
            self._holds.release(partition)
            if partition in self._kafka.assignment():
                self.offsets.done(partition, place)

        while records and not self._stopping.is_set() and partition in self._kafka.assignment():
            async with self._turns:
                size = self._pace.of(records)
                some, records = records[:size], records[size:]
                try:
                    seconds = await self._receiver.receive(*some, done=done)
                except Exception as error:  # noqa: BLE001 (whatever it was, the partition waits for it)
                    self._pace.failed()
                    self._hold(partition, place, error)
                    return
                self._pace.took(len(some), seconds)

    def _hold(self, partition: TopicPartition, place: int, error: Exception) -> None:
        self._holds.put(partition, place, error)
        with suppress(IllegalStateError):  # It may be another's by now.
            self._kafka.seek(partition, place)
            self._kafka.pause(partition)


async def _nothing() -> Mapping[TopicPartition, Sequence[ConsumerRecord]]:
    await asyncio.sleep(_FETCH_SECONDS)
    return {}
