"""Reading from Kafka, past records that its client cannot read.

aiokafka checks record batches and decodes the names of headers while it fetches. Where a batch is corrupt, or
a name no UTF-8, it raises, again and again, does not say in which partition, and has taken what it fetched of
others for given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException

Fetched = Mapping[TopicPartition, Sequence[ConsumerRecord]]

_PAUSE_SECONDS = 0.05


class Unreadable(ConsumerRecord):  # type: ignore[misc]  # aiokafka has no types
    """A record of which only the place is known."""

    reason = (
        "a header's name is no UTF-8, which the client for Kafka cannot read; all that is in the record is in"
        " Kafka alone, at this offset"
    )


class Corrupt(Unreadable):
    """A record in a batch that is not what the producer wrote."""

    reason = (
        "its record batch is corrupt: the broker's disk or another replica may have it whole, at this offset"
    )


_TROUBLE: Mapping[type[Exception], type[Unreadable]] = {
    UnicodeDecodeError: Unreadable,
    CorruptRecordException: Corrupt,
}
_RAISED = tuple(_TROUBLE)


class Reader:
    """Gives what has come, as `getmany` does; for a record that cannot be read an `Unreadable`.

    After a failure each partition is fetched by itself, until one of them fails again; that one record by
    record, until the one at fault is the next.
    """

    def __init__(self, kafka: AIOKafkaConsumer) -> None:
        self._kafka = kafka
        self._alone: set[TopicPartition] = set()
        """One of them has a record that cannot be read."""
        self._singly: set[TopicPartition] = set()
        """Those that have one."""
        self._astray: set[TopicPartition] = set()
        """Of these the client may have gone on without giving what it took."""

    async def some(self, partitions: Collection[TopicPartition], seconds: float) -> Fetched:
        """Returns what has come of these partitions, which may be of one of them; nothing after so long.

        Can be cancelled: what is not given comes again.
        """
        await self._go_back()
        for partition in self._alone.intersection(partitions):
            if found := await self._of_one(partition):
                return found
        together = [each for each in partitions if each not in self._alone]
        if partitions and not together:
            await asyncio.sleep(min(seconds, _PAUSE_SECONDS))
            return {}
        try:
            given: Fetched = await self._kafka.getmany(*together, timeout_ms=int(seconds * 1_000))
        except _RAISED:
            self._alone.update(together)
            self._astray.update(together)
            return {}
        return given

    def begin_anew(self) -> None:
        """Forgets which partitions had such records: others may have passed them by meanwhile."""
        for each in (self._alone, self._singly, self._astray):
            each.clear()

    async def _of_one(self, partition: TopicPartition) -> Fetched:
        singly = partition in self._singly
        try:
            found: Fetched = await self._kafka.getmany(
                partition, timeout_ms=0, max_records=1 if singly else None
            )
        except _RAISED as error:
            if singly:
                return {partition: [await self._pass_by(partition, _TROUBLE[type(error)])]}
            self._singly.add(partition)
            self._astray.add(partition)
            self._alone = set(self._singly)
            return {}
        return found

    async def _pass_by(self, partition: TopicPartition, kind: type[Unreadable]) -> Unreadable:
        offset = await self._kafka.position(partition)
        self._kafka.seek(partition, offset + 1)
        self._singly.discard(partition)
        self._alone.discard(partition)
        now = int(time.time() * 1_000)
        return kind(*partition, offset, now, 0, None, None, None, -1, -1, ())

    async def _go_back(self) -> None:
        """Goes back to what is committed; what was applied since then comes again, and is dropped."""
        ours = self._kafka.assignment()
        for partition in sorted(self._astray):
            if partition in ours:
                if offset := await self._kafka.committed(partition):
                    self._kafka.seek(partition, offset)
                else:
                    await self._kafka.seek_to_beginning(partition)
            self._astray.discard(partition)
