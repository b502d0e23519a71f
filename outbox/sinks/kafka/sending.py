"""What one send has still to do, and what became of each of its deliveries.

Owns the rule that nothing of a key goes out past a failure within that key; knows no connection.
Records wait in one queue per partition, as record batches, which a broker takes or refuses whole.
Of a queue only the first batch is ever under way. A broker's answer about it, and nothing else, halves it
until the record at fault stands alone: a batch without an answer may still come to be in the log.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from outbox.errors import Permanent, SinkError, Transient, Unavailable, Unsent
from outbox.message import Delivery, Result, Sent
from outbox.sinks import BEHIND
from outbox.sinks.kafka.murmur2 import hashed
from outbox.sinks.kafka.records import Record, RecordBatch, RecordFormat, record_of

_UNLIMITED = 2**31 - 1
_MOST_FAULTS = 8
"""When so many records failed alone, and none was taken meanwhile, it is not about them."""
_MAYBE_BEHIND = Unsent(BEHIND.reason, uncertain=True)


class MakeError(Protocol):
    """Makes the error of a failure."""

    def __call__(self, *, uncertain: bool) -> SinkError:
        """Makes an error; `uncertain` if the delivery may be in the log all the same."""


@dataclass(slots=True, eq=False)
class PartitionQueue:
    """What still goes to one partition, in order."""

    topic: str
    partition: int
    batches: deque[RecordBatch] = field(default_factory=deque)
    searches: int = 0
    """How often its leader had to be looked for since it last took a batch."""
    suspects: list[int] = field(default_factory=list)
    """The rows that failed alone, by answers that tell nothing, since it last took a batch."""


class Sending:
    """One send: its deliveries, what is queued of them, and their results."""

    def __init__(
        self, deliveries: Sequence[Delivery], written: RecordFormat, *, turn: int = 0, now: int = 0
    ) -> None:
        self.deliveries = deliveries
        self.now = now
        """The time of the send, in milliseconds since 1970."""
        self.answered = False
        """Whether a broker said anything of them."""
        self._format = written
        self._sent_at = None if written.occurred else now
        self._turn = turn
        self._queues: list[PartitionQueue] = []
        self._results: list[Result | None] = [None] * len(deliveries)
        self._failed: dict[int, int] = {}
        """For each key with a failure the first row that failed; those after it are behind it."""

    def by_topic(self) -> dict[str, list[int]]:
        """Returns the deliveries' indexes, by topic."""
        topics: dict[str, list[int]] = defaultdict(list)
        for row, delivery in enumerate(self.deliveries):
            topics[delivery.destination].append(row)
        return topics

    def enqueue(self, topic: str, rows: Iterable[int], leaders: Sequence[int]) -> list[PartitionQueue]:
        """Makes records of these deliveries, and queues them by partition.

        A key's partition is the Java client's. Deliveries without a key go to one partition that
        has a leader, another one in the next turn. What cannot be a record, or is larger than a record
        batch may be, fails here: before anything that follows it in its key is sent.
        """
        queues: dict[int, PartitionQueue] = {}
        available = [partition for partition, leader in enumerate(leaders) if leader >= 0] or range(
            len(leaders)
        )
        keyless = available[self._turn % len(available)]
        for row in self._not_behind(rows):
            delivery = self.deliveries[row]
            key = delivery.key
            partition = keyless if key is None else hashed(key)[1] % len(leaders)
            queue = queues.get(partition)
            if queue is None:
                queue = queues[partition] = PartitionQueue(topic, partition)
            try:
                record = self._record_of(row, self._sent_at)
            except ValueError as error:
                self._fail(row, Permanent(str(error)))
                continue
            if not (queue.batches and queue.batches[-1].append(row, record)):
                self._start_batch(queue, row, record)
        self._queues += queues.values()
        return list(queues.values())

    def next_batch(self, queue: PartitionQueue) -> RecordBatch | None:
        """Returns the batch to send next, without what is behind a failure by now; None if all is done."""
        while queue.batches:
            batch = queue.batches[0]
            rows = list(self._not_behind(batch.rows, maybe=batch.uncertain)) if self._failed else batch.rows
            if len(rows) == len(batch.rows):
                return batch
            queue.batches.popleft()
            if rows:
                queue.batches.appendleft(self._part_of(batch, rows))
        return None

    def taken(self, queue: PartitionQueue, offset: int) -> None:
        """Records that the broker has the first batch, from this offset on."""
        batch = queue.batches.popleft()
        queue.searches = 0
        queue.suspects.clear()
        for row in batch.rows:
            self._results[row] = Sent(queue.partition, offset)
            offset += 1

    def refused(self, queue: PartitionQueue, failure: MakeError) -> None:
        """Halves the first batch, of which the broker took nothing for the sake of one of its records.

        A record that stands alone fails.
        """
        batch = queue.batches.popleft()
        if len(batch.rows) == 1:
            self._fail(batch.rows[0], failure(uncertain=batch.uncertain))
            return
        middle = len(batch.rows) // 2
        for rows in (batch.rows[middle:], batch.rows[:middle]):
            queue.batches.appendleft(self._part_of(batch, rows))

    def unclear(self, queue: PartitionQueue, reason: str) -> None:
        """Has the first batch, which may be in the log or not, sent again whole; the next time halves it.

        A record that stands alone fails. Where many do and nothing is taken, the partition is at fault.
        """
        batch = queue.batches[0]
        batch.uncertain = True
        if not batch.again:
            batch.again = True
            return
        self.refused(queue, partial(Transient, reason))
        if len(batch.rows) == 1:
            queue.suspects += batch.rows
            if len(queue.suspects) >= _MOST_FAULTS:
                self.failed(queue, partial(Unavailable, reason, scope="part"))

    def mistimed(self, queue: PartitionQueue, failure: MakeError) -> None:
        """Has the first batch sent with the time of the send; where it had that, all that is queued fails."""
        batch = queue.batches[0]
        if batch.sent_at is None:
            queue.batches[0] = self._part_of(batch, batch.rows, sent_at=self.now)
        else:
            self.failed(queue, failure)

    def failed(self, queue: PartitionQueue, failure: MakeError) -> None:
        """Fails all that is queued, and what failed alone before: nothing more goes to this partition."""
        for row in queue.suspects:
            self._results[row] = _of_part(queue, failure(uncertain=True))
        queue.suspects.clear()
        while queue.batches:
            batch = queue.batches.popleft()
            error = _of_part(queue, failure(uncertain=batch.under_way or batch.uncertain))
            for row in batch.rows:
                self._fail(row, error)

    def give_up(self, rows: Iterable[int], failure: MakeError) -> None:
        """Fails deliveries that were not queued and will not be."""
        error = failure(uncertain=False)
        for row in rows:
            self._fail(row, error)

    def finish(self, failure: MakeError) -> list[Result]:
        """Ends the send; returns all results, with this failure for whatever has none yet."""
        for queue in self._queues:
            if queue.batches:
                self.failed(queue, failure)
        self.give_up((row for row, result in enumerate(self._results) if result is None), failure)
        return [result for result in self._results if result is not None]

    def _not_behind(self, rows: Iterable[int], *, maybe: bool = False) -> Iterator[int]:
        """Gives the rows with no failure before them in their key; the others get their result.

        `maybe` says that they may have arrived.
        """
        failed = self._failed
        for row in rows:
            if failed and failed.get(self.deliveries[row].key_hash, row) < row:
                self._results[row] = _MAYBE_BEHIND if maybe else BEHIND
            else:
                yield row

    def _start_batch(self, queue: PartitionQueue, row: int, record: Record) -> None:
        limit = self._format.max_batch_bytes
        batch = RecordBatch(self._format.codec, limit, self._sent_at)
        batch.append(row, record)
        if batch.size > limit and (size := len(batch.data)) > limit:
            reason = f"its record batch of {size} bytes is over OUTBOX_KAFKA_MAX_BATCH_BYTES={limit}"
            self._fail(row, Permanent(reason))
        else:
            queue.batches.append(batch)

    def _part_of(self, batch: RecordBatch, rows: Iterable[int], *, sent_at: int | None = None) -> RecordBatch:
        """Makes a batch of these rows of another one, of which the same is known."""
        part = RecordBatch(self._format.codec, _UNLIMITED, batch.sent_at if sent_at is None else sent_at)
        part.uncertain, part.again = batch.uncertain, batch.again
        for row in rows:
            part.append(row, self._record_of(row, part.sent_at))
        return part

    def _record_of(self, row: int, sent_at: int | None) -> Record:
        return record_of(self.deliveries[row], self._format.cloudevents_source, sent_at)

    def _fail(self, row: int, error: SinkError) -> None:
        first = self._failed.setdefault(self.deliveries[row].key_hash, row)
        if first < row and not error.uncertain:
            error = BEHIND
        elif row < first:
            self._failed[self.deliveries[row].key_hash] = row
        self._results[row] = error


def _of_part(queue: PartitionQueue, error: SinkError) -> SinkError:
    if isinstance(error, Unavailable) and error.scope == "part":
        error.part = str(queue.partition)
    return error
