from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.errors import Permanent, Transient, Unavailable, Unsent
from outbox.message import Delivery, Result, Sent
from outbox.sinks.kafka.murmur2 import hashed
from outbox.sinks.kafka.records import RecordFormat
from outbox.sinks.kafka.sending import PartitionQueue, Sending
from tests.support.deliveries import delivery

LIMIT = 2_000
LEADERS = [1, 1, 1]
DOWN = partial(Unavailable, "down", scope="part")
LATE = partial(Unavailable, "late")


def queued(
    rows: list[Delivery], *, leaders: list[int] = LEADERS, turn: int = 0
) -> tuple[Sending, list[PartitionQueue]]:
    sending = Sending(rows, RecordFormat(max_batch_bytes=LIMIT), turn=turn)
    queues = [
        queue
        for topic, indexes in sending.by_topic().items()
        for queue in sending.enqueue(topic, indexes, leaders)
    ]
    return sending, queues


def test_a_key_has_its_partition_and_its_order() -> None:
    rows = [delivery("t", f"key-{number % 7}") for number in range(50)]
    _, queues = queued(rows)
    for queue in queues:
        indexes = [row for batch in queue.batches for row in batch.rows]
        assert indexes == sorted(indexes)
        for row in indexes:
            key = rows[row].key
            assert key is not None
            assert queue.partition == hashed(key)[1] % len(LEADERS)
        assert all(len(batch.data) <= LIMIT for batch in queue.batches)


def test_without_a_key_partitions_with_a_leader_take_turns() -> None:
    rows = [delivery("t"), delivery("t")]
    found = [queued(rows, leaders=[1, -1, 2], turn=turn)[1] for turn in range(4)]
    assert [[queue.partition for queue in queues] for queues in found] == [[0], [2], [0], [2]]


def test_without_any_leader_a_partition_is_chosen_all_the_same() -> None:
    assert queued([delivery("t")], leaders=[-1, -1])[1][0].partition == 0


def test_what_can_never_fit_is_found_before_anything_behind_it_is_sent() -> None:
    rows = [
        delivery("t", "a"),
        delivery("t", "a", payload=b"x" * LIMIT),
        delivery("t", "a"),
        delivery("t", "b", headers={"x": 1}),
        delivery("t", "b"),
        delivery("t", "c"),
    ]
    sending, queues = queued(rows)
    assert sorted(row for queue in queues for batch in queue.batches for row in batch.rows) == [0, 5]
    for queue in queues:
        while sending.next_batch(queue):
            sending.taken(queue, 10)
    results = sending.finish(LATE)
    assert [type(result) for result in results] == [Sent, Permanent, Unsent, Permanent, Unsent, Sent]
    assert str(results[1]).endswith(f"bytes is over OUTBOX_KAFKA_MAX_BATCH_BYTES={LIMIT}")
    assert str(results[3]) == "the row's headers are not all strings"


def test_offsets_count_from_the_first_record_of_a_batch() -> None:
    sending, [queue] = queued([delivery("t", "a") for _ in range(3)])
    sending.taken(queue, 40)
    assert sending.finish(LATE) == [Sent(queue.partition, offset) for offset in (40, 41, 42)]


def test_a_certain_failure_is_told_once_a_key_and_of_which_partition() -> None:
    sending, [queue] = queued([delivery("t", "a"), delivery("t", "a")])
    sending.failed(queue, DOWN)
    first, second = sending.finish(LATE)
    assert isinstance(first, Unavailable)
    assert (str(first), first.part) == ("down", str(queue.partition))
    assert isinstance(second, Unsent)


def test_each_of_an_uncertain_batch_is_uncertain() -> None:
    sending, [queue] = queued([delivery("t", "a", payload=b"x" * 700) for _ in range(3)])
    assert [batch.rows for batch in queue.batches] == [[0, 1], [2]]
    queue.batches[0].under_way = True
    results = sending.finish(LATE)
    assert [(type(result), getattr(result, "uncertain", None)) for result in results] == [
        (Unavailable, True),
        (Unavailable, True),
        (Unsent, False),
    ]


class Log:
    """A partition whose broker refuses batches with certain records and answers others as it likes."""

    def __init__(self, bad: set[int], luck: random.Random) -> None:
        self.rows: list[int] = []
        self._bad = bad
        self._luck = luck

    def offer(self, sending: Sending, queue: PartitionQueue, rows: list[int]) -> None:
        batch = queue.batches[0]
        if self._bad & set(rows):
            sending.refused(queue, partial(Permanent, "refused"))
            return
        match self._luck.randrange(10):
            case 0:
                sending.failed(queue, DOWN)
            case 1:
                batch.under_way = True
                self.rows += rows if self._luck.random() < 0.5 else []
                sending.failed(queue, DOWN)
            case 2:
                self.rows += rows if self._luck.random() < 0.5 else []
                sending.unclear(queue, "who knows")
            case 3:  # a leader that steps down: the same batch comes again
                batch.uncertain = True
                self.rows += rows if self._luck.random() < 0.5 else []
            case _:
                sending.taken(queue, len(self.rows))
                self.rows += rows


@settings(max_examples=300, deadline=None)
@given(
    keys=st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), max_size=40),
    bad=st.sets(st.integers(0, 39), max_size=6),
    huge=st.sets(st.integers(0, 39), max_size=3),
    luck=st.randoms(),
)
def test_nothing_of_a_key_goes_out_past_a_failure(
    keys: list[str | None], bad: set[int], huge: set[int], luck: random.Random
) -> None:
    rows = [
        delivery("t", key, payload=b"x" * (LIMIT if index in huge else 300)) for index, key in enumerate(keys)
    ]
    sending, queues = queued(rows)
    logs = {queue.partition: Log(bad, luck) for queue in queues}
    for queue in queues:
        while batch := sending.next_batch(queue):
            logs[queue.partition].offer(sending, queue, batch.rows)
    results = sending.finish(LATE)

    arrived = {row for log in logs.values() for row in log.rows}
    assert len(results) == len(rows)
    for key_rows in by_key(rows):
        reached = [row in arrived for row in key_rows]
        assert reached == sorted(reached, reverse=True), "a later one arrived and an earlier one did not"
        firsts = [row for log in logs.values() for row in dict.fromkeys(log.rows) if row in key_rows]
        assert firsts == [row for row in key_rows if row in arrived], "first arrivals are not in order"
        for row, failed_before in zip(key_rows, failures_before(results, key_rows), strict=True):
            match results[row]:
                case Sent(partition=partition, offset=offset):
                    assert partition is not None
                    assert offset is not None
                    assert logs[partition].rows[offset] == row
                case Unsent(uncertain=uncertain):
                    assert failed_before
                    assert row not in arrived or uncertain
                case error:
                    assert row not in arrived or error.uncertain


def by_key(rows: list[Delivery]) -> Iterator[list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        found[row.key_hash].append(index)
    yield from found.values()


def failures_before(results: list[Result], rows: list[int]) -> list[bool]:
    return [any(not isinstance(results[row], Sent) for row in rows[:index]) for index in range(len(rows))]


@pytest.mark.parametrize("bad", [0, 4, 9])
def test_a_refused_batch_is_halved_down_to_the_record_at_fault(bad: int) -> None:
    rows = [delivery("t", f"key-{index}") for index in range(10)]
    sending = Sending(rows, RecordFormat())
    [queue] = sending.enqueue("t", range(10), [1])
    log: list[int] = []
    offers = 0
    while batch := sending.next_batch(queue):
        offers += 1
        if bad in batch.rows:
            sending.refused(queue, partial(Permanent, "MESSAGE_TOO_LARGE"))
        else:
            sending.taken(queue, len(log))
            log += batch.rows
    results = sending.finish(LATE)
    assert [type(result) for result in results] == [
        Permanent if index == bad else Sent for index in range(10)
    ]
    assert log == [index for index in range(10) if index != bad]
    assert offers <= 9


def answered(
    sending: Sending, queue: PartitionQueue, unclear: Callable[[list[int]], bool]
) -> list[list[int]]:
    """Answers all that is offered; returns the rows of each batch."""
    offers: list[list[int]] = []
    offset = 0
    while batch := sending.next_batch(queue):
        offers.append(batch.rows)
        if unclear(batch.rows):
            sending.unclear(queue, "UNKNOWN_SERVER_ERROR")
        else:
            sending.taken(queue, offset)
            offset += len(batch.rows)
    return offers


@pytest.mark.parametrize("bad", [0, 4, 9])
def test_an_answer_that_is_always_uncertain_charges_the_record_at_fault_after_the_batch_went_again_whole(
    bad: int,
) -> None:
    sending = Sending([delivery("t", f"key-{index}") for index in range(10)], RecordFormat())
    [queue] = sending.enqueue("t", range(10), [1])
    offers = answered(sending, queue, lambda rows: bad in rows)
    assert offers[:2] == [list(range(10))] * 2
    assert len(offers) <= 10
    results = sending.finish(LATE)
    assert [type(result) for result in results] == [
        Transient if index == bad else Sent for index in range(10)
    ]
    assert [result.uncertain for result in results if isinstance(result, Transient)] == [True]


def test_a_partition_that_answers_nothing_else_is_at_fault_itself() -> None:
    sending = Sending([delivery("t", f"key-{index}") for index in range(100)], RecordFormat())
    [queue] = sending.enqueue("t", range(100), [1])
    offers = answered(sending, queue, lambda _: True)
    assert len(offers) < 30
    for result in sending.finish(LATE):
        assert isinstance(result, Unavailable)
        assert (result.scope, result.part, result.uncertain) == ("part", "0", True)


def test_what_has_no_answer_is_not_halved() -> None:
    sending = Sending([delivery("t", f"key-{index}") for index in range(10)], RecordFormat())
    [queue] = sending.enqueue("t", range(10), [1])
    queue.batches[0].under_way = True
    sending.failed(queue, DOWN)
    assert queue.batches == deque()
    assert {(type(result), str(result)) for result in sending.finish(LATE)} == {(Unavailable, "down")}


def test_a_time_that_is_refused_is_replaced_once() -> None:
    sending = Sending([delivery("t", "a")], RecordFormat(occurred=True), now=1_234)
    [queue] = sending.enqueue("t", [0], [1])
    batch = queue.batches[0]
    sending.mistimed(queue, partial(Unavailable, "INVALID_TIMESTAMP", scope="destination"))
    assert (batch.sent_at, queue.batches[0].sent_at) == (None, 1_234)
    sending.mistimed(queue, partial(Unavailable, "INVALID_TIMESTAMP", scope="destination"))
    [result] = sending.finish(LATE)
    assert isinstance(result, Unavailable)
    assert (result.scope, result.uncertain) == ("destination", False)
