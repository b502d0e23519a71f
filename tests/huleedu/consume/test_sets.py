"""A set of records in one transaction: it ends as one by one would, whatever is in it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from aiokafka import ConsumerRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.huleedu.consume import ConsumerMetrics, Effect, Handler, Incoming, Receiver
from outbox.huleedu.consume.pace import SET_MOST, Pace
from outbox.huleedu.els.service import Els
from outbox.huleedu.events import (
    ASSESSMENT_PUBLISHED,
    ESSAYS_REGISTERED,
    SLOT_ASSIGNED,
    SPELLCHECK_RESULTS,
)
from outbox.huleedu.events.fields import Id, Model
from outbox.huleedu.ras import Ras
from tests.huleedu.consume.conftest import PARKED, column, records
from tests.huleedu.ras.test_record import anonymous, assessment, known, slot, spellcheck, story
from tests.support.huleedu import event, record, registration


async def test_one_event_at_fault_parks_alone_and_the_others_of_its_set_are_applied(ras: Ras) -> None:
    bodies: list[Any] = [event(ESSAYS_REGISTERED, registration(f"b-{number}")) for number in range(100)]
    bodies[37] = event(ESSAYS_REGISTERED, registration("b-36", user_id="somebody else"))
    bodies[61] = b"?"
    done: list[int] = []
    await ras.receiver.receive(
        *records(ESSAYS_REGISTERED, *bodies), done=lambda last: done.append(last.offset)
    )
    assert await column(ras.engine, PARKED) == [37, 61]
    assert await column(ras.engine, "SELECT count(*) FROM ras_batches") == [98]
    assert await column(ras.engine, "SELECT count(*) FROM outbox_inbox") == [98]
    assert done == sorted(done)
    assert done[-1] == 99
    assert await column(ras.engine, "SELECT kind FROM huleedu_parked_input ORDER BY id") == [
        "refused",
        "unreadable",
    ]


async def test_of_one_row_several_times_in_a_set_the_latest_counts(ras: Ras) -> None:
    start = datetime(2025, 7, 24, tzinfo=UTC)
    bodies = [
        event(
            SPELLCHECK_RESULTS,
            spellcheck("b", 0, corrections_made=number),
            event_timestamp=(start + timedelta(minutes=number)).isoformat(),
        )
        for number in (1, 3, 2)
    ]
    await ras.receiver.receive(record(ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, registration("b", 1))))
    await ras.receiver.receive(*records(SPELLCHECK_RESULTS, *bodies, bodies[0]))
    assert (await known(ras.engine, "b")).essays[0].spellcheck_correction_count == 3


@given(order=st.permutations(range(10)), cuts=st.lists(st.integers(0, 10), max_size=3))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_sets_of_any_size_end_as_one_by_one(ras: Ras, order: list[int], cuts: list[int]) -> None:
    one_by_one, in_sets = f"one-{uuid4()}", f"sets-{uuid4()}"
    for topic, body in story(one_by_one):
        await ras.receiver.receive(record(topic, body))
    events = [story(in_sets)[number] for number in order]
    for first, last in itertools.pairwise([0, *sorted(cuts), 10]):
        for topic, some in itertools.groupby(events[first:last], key=lambda each: each[0]):
            await ras.receiver.receive(*(record(topic, body) for _, body in some))
    one, many = await known(ras.engine, one_by_one), await known(ras.engine, in_sets)
    assert anonymous(many, in_sets) == anonymous(one, one_by_one)


async def test_above_what_a_statement_has_parameters_for_an_assessment_is_applied(ras: Ras) -> None:
    results = [
        {"essay_id": f"essay-{number}", "rank": number + 1, "bt_score": 0.5} for number in range(5_000)
    ]
    body = event(ASSESSMENT_PUBLISHED, {**assessment("b"), "essay_results": results})
    await ras.receiver.receive(record(ASSESSMENT_PUBLISHED, body))
    assert await column(ras.engine, "SELECT count(*) FROM ras_assessments") == [5_000]
    assert await column(ras.engine, PARKED) == []


async def test_a_header_without_a_value_blocks_nothing(ras: Ras, els: Els) -> None:
    headers = (("traceparent", None), ("odd", b"\xff\0"), ("", b""))

    def with_headers(topic: str, body: Any, offset: int) -> ConsumerRecord:
        plain = record(topic, body, offset)
        return ConsumerRecord(**{**vars_of(plain), "headers": headers})

    registered = event(ESSAYS_REGISTERED, registration())
    for service in (ras, els):
        await service.receiver.receive(with_headers(ESSAYS_REGISTERED, registered, 0))
        await service.receiver.receive(with_headers(ESSAYS_REGISTERED, b"?", 1))
    assert await column(ras.engine, "SELECT count(*) FROM ras_batches") == [1]
    assert (
        await column(ras.engine, "SELECT headers ->> 'odd' FROM huleedu_parked_input") == ["\\xff\\x00"] * 2
    )


def vars_of(plain: ConsumerRecord) -> dict[str, Any]:
    return {name: getattr(plain, name) for name in ConsumerRecord.__dataclass_fields__}


class Thing(Model):
    """What the events of a handler of these tests are about."""

    name: Id


async def test_a_deadlock_is_tried_again_and_parks_nobody(ras: Ras) -> None:
    deadlocks = iter((True, True, False))

    async def apply(connection: AsyncConnection, events: Sequence[Incoming[Thing]]) -> list[Effect]:
        if next(deadlocks):
            await connection.execute(text("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40P01'; END $$"))
        return [Effect("applied") for _ in events]

    metrics = ConsumerMetrics("test", CollectorRegistry())
    receiver = Receiver(ras.engine, "test", [Handler("things", Thing, apply)], metrics)
    await receiver.receive(*records("things", *(event("things", {"name": name}) for name in "abc")))
    assert await column(ras.engine, "SELECT count(*) FROM outbox_inbox") == [3]
    assert await column(ras.engine, PARKED) == []


async def test_sets_with_the_same_events_in_another_order_never_wait_for_each_other(ras: Ras) -> None:
    for turn in range(10):
        bodies = [
            event(SLOT_ASSIGNED, slot(f"b-{turn}", number), event_id=str(uuid4())) for number in range(50)
        ]
        there, back = records(SLOT_ASSIGNED, *bodies), records(SLOT_ASSIGNED, *bodies[::-1])
        await asyncio.gather(ras.receiver.receive(*there), ras.receiver.receive(*back))
    assert await column(ras.engine, "SELECT count(*) FROM ras_slots") == [500]


def test_a_busy_machine_makes_no_set_smaller_than_what_a_transaction_is_worth() -> None:
    pace = Pace()
    pace.took(200, 60.0)
    assert pace.size == 1
    light, heavy = (records("t", *[b"x" * size] * 200) for size in (600, 60_000))
    assert pace.of(light) == 108
    assert pace.of(heavy) == 1
    pace.took(108, 0.01)
    assert pace.of(light) == 200
    for _ in range(8):
        pace.failed()
    assert pace.of(light) == 1


def test_a_set_is_as_large_as_what_takes_50_ms() -> None:
    pace = Pace()
    assert pace.size == SET_MOST == 200
    pace.took(200, 0.2)
    assert pace.size == 50
    pace.took(50, 0.01)
    assert pace.size == 100
    pace.took(1, 5.0)
    assert pace.size == 1
    for _ in range(10):
        pace.took(pace.size, 0.000_1)
    assert pace.size == SET_MOST
    pace.failed()
    assert pace.size == 100
