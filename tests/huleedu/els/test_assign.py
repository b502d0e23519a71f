"""Content gets its slot, and what is said of it commits with it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from outbox.huleedu.els import Assigned, Excess, SlotOutcome, Waiting, assign_slot, register_batch
from outbox.huleedu.els.assign import Given, Registration, assign_slots, register_batches
from outbox.huleedu.els.metrics import REGISTRY
from outbox.huleedu.errors import Unacceptable
from outbox.huleedu.events import (
    EXCESS_CONTENT,
    PROVISIONING_COMPLETED,
    SLOT_ASSIGNED,
    EssayContentProvisionedV1,
)
from outbox.huleedu.formats import EXCESS_NOTIFICATION, NOTIFICATION
from tests.support.huleedu import content, registration, written
from tests.support.page import misfits


async def assign(engine: AsyncEngine, *contents: EssayContentProvisionedV1) -> list[SlotOutcome]:
    """Assign each in a transaction of its own."""
    outcomes = []
    for each in contents:
        async with engine.begin() as connection:
            outcomes.append(await assign_slot(connection, each))
    return outcomes


async def register(engine: AsyncEngine, **changed: Any) -> bool:
    async with engine.begin() as connection:
        return await register_batch(connection, registration(**changed), uuid4())


async def test_the_lowest_free_slot_is_given_and_told_to_kafka_and_redis(
    engine: AsyncEngine, batch: str
) -> None:
    first, second = content(1), content(2)
    assert await assign(engine, first, second) == [
        Assigned(f"{batch}/essay-0", 0, first=True),
        Assigned(f"{batch}/essay-1", 1, first=True),
    ]
    kafka, redis = (await written(engine))[:2]
    assert (kafka.sink, kafka.destination, kafka.key) == ("kafka", SLOT_ASSIGNED, batch)
    assert (redis.sink, redis.destination, redis.key) == ("redis", "ws:teacher-1", "teacher-1")
    assert kafka.message_id == redis.message_id == kafka.body["event_id"] == redis.body["message_id"]
    assert UUID(kafka.message_id).version == 7
    assert kafka.body["data"]["slot_index"] == redis.body["data"]["slot_index"] == 0
    assert kafka.headers["correlation_id"] == kafka.body["correlation_id"] == str(first.correlation_id)
    assert kafka.headers["occurred_at"] == kafka.body["event_timestamp"]
    assert kafka.lifetime is None
    assert redis.lifetime == pytest.approx(60, abs=1)


async def test_a_session_works_as_a_connection_does(engine: AsyncEngine, batch: str) -> None:
    async with AsyncSession(engine) as session, session.begin():
        assert await assign_slot(session, content()) == Assigned(f"{batch}/essay-0", 0, first=True)
    assert len(await written(engine)) == 2


async def test_nothing_remains_of_a_transaction_that_is_rolled_back(engine: AsyncEngine, batch: str) -> None:
    async with engine.connect() as connection:
        await assign_slot(connection, content(1))
        await connection.rollback()
    assert await written(engine) == []
    assert await assign(engine, content(2)) == [Assigned(f"{batch}/essay-0", 0, first=True)]


async def test_the_same_upload_or_text_has_the_same_slot_and_is_told_once(
    engine: AsyncEngine, batch: str
) -> None:
    upload = content(1)
    again = [upload, content(1, text_storage_id="text-9")]
    await assign(engine, upload, content(2))
    assert await assign(engine, *again) == [Assigned(f"{batch}/essay-0", 0, first=False)] * 2
    assert len(await written(engine)) == 4


async def test_another_upload_of_the_same_text_learns_once_which_slot_has_it(
    engine: AsyncEngine, batch: str
) -> None:
    second = content(8, text_storage_id="text-1")
    await assign(engine, content(0), content(1))
    before = await written(engine)
    had = Assigned(f"{batch}/essay-1", 1, first=False, duplicate_of="upload-1")
    assert await assign(engine, second, second) == [had] * 2
    (told,) = (await written(engine))[len(before) :]
    assert (told.sink, told.destination, told.lifetime) == ("redis", "ws:teacher-1", pytest.approx(60, abs=1))
    of_first = before[-1].body["data"]
    assert told.body["event"] == "essay_slot_assigned"
    assert told.body["message_id"] == told.message_id != before[-1].message_id
    assert told.body["data"] == of_first | {
        "file_upload_id": "upload-8",
        "filename": "essay 8.txt",
        "duplicate_of": "upload-1",
    }
    assert "duplicate_of" not in of_first
    assert misfits(NOTIFICATION, told.body) == []


async def test_the_same_text_twice_before_the_registration_loses_neither_upload(engine: AsyncEngine) -> None:
    await assign(engine, content(1), content(2, text_storage_id="text-1"), content(3))
    await register(engine)
    told = [each.body["data"] for each in await written(engine, "ws:%")]
    assert [(each["file_upload_id"], each["slot_index"]) for each in told] == [
        ("upload-1", 0),
        ("upload-2", 0),
        ("upload-3", 1),
    ]
    assert told[1]["duplicate_of"] == "upload-1"


async def test_excess_content_is_told_to_kafka_and_to_the_browser_of_every_upload_of_it(
    engine: AsyncEngine, batch: str
) -> None:
    refused = [content(5), content(6, text_storage_id="text-5")]
    await assign(engine, *map(content, range(3)), *refused, *refused)
    kafka, redis, *others = (await written(engine))[7:]
    assert [each.sink for each in others] == ["kafka", "redis"]
    assert (kafka.destination, redis.destination, redis.key) == (EXCESS_CONTENT, "ws:teacher-1", "teacher-1")
    assert kafka.message_id == redis.message_id == kafka.body["event_id"] == redis.body["message_id"]
    assert redis.lifetime == pytest.approx(60, abs=1)
    assert redis.body["event"] == "essay_excess"
    assert redis.body["data"] == {
        "batch_id": batch,
        "file_upload_id": "upload-5",
        "filename": "essay 5.txt",
        "reason": "NO_AVAILABLE_SLOT",
        "timestamp": kafka.body["data"]["timestamp"],
    }
    assert misfits(EXCESS_NOTIFICATION, redis.body) == []


async def test_an_upload_counts_before_a_text(engine: AsyncEngine, batch: str) -> None:
    await assign(engine, content(1), content(2))
    assert await assign(engine, content(2, text_storage_id="text-1")) == [
        Assigned(f"{batch}/essay-1", 1, first=False)
    ]


async def test_the_last_slot_completes_the_batch_and_what_comes_then_is_excess(
    engine: AsyncEngine, batch: str
) -> None:
    uploads = [content(number) for number in range(5)]
    outcomes = await assign(engine, *uploads, *uploads)
    assert outcomes[3:5] == [Excess(first=True)] * 2
    assert outcomes[8:] == [Excess(first=False)] * 2
    (completed,) = await written(engine, PROVISIONING_COMPLETED)
    assert completed.body["data"]["essays_for_processing"] == [
        {"essay_id": f"{batch}/essay-{n}", "text_storage_id": f"text-{n}", "spellcheck_metrics": None}
        for n in range(3)
    ]
    refused = await written(engine, EXCESS_CONTENT)
    assert [each.body["data"]["file_upload_id"] for each in refused] == ["upload-3", "upload-4"]


async def test_many_at_once_get_distinct_slots(engine: AsyncEngine) -> None:
    await register(engine, essays=30)
    at_once = asyncio.Semaphore(10)

    async def upload(number: int) -> SlotOutcome:
        async with at_once, engine.begin() as connection:
            return await assign_slot(connection, content(number))

    outcomes = await asyncio.gather(*(upload(number % 100) for number in range(200)))
    slots = {each.slot_index for each in outcomes if isinstance(each, Assigned)}
    assert slots == set(range(30))
    told = Counter(each.destination for each in await written(engine))
    assert told == {SLOT_ASSIGNED: 30, "ws:teacher-1": 100, EXCESS_CONTENT: 70, PROVISIONING_COMPLETED: 1}


async def test_content_waits_for_its_batch_and_gets_its_slot_in_the_order_it_came(
    engine: AsyncEngine,
) -> None:
    assert await assign(engine, *(content(number) for number in (3, 1, 2, 0, 3))) == [Waiting()] * 5
    assert await written(engine) == []
    assert await register(engine)
    assigned = await written(engine, SLOT_ASSIGNED)
    assert [each.body["data"]["file_upload_id"] for each in assigned] == ["upload-3", "upload-1", "upload-2"]
    assert len(await written(engine, PROVISIONING_COMPLETED)) == 1
    assert len(await written(engine, EXCESS_CONTENT)) == 1
    assert await assign(engine, content(3), content(0)) == [
        Assigned("batch-1/essay-0", 0, first=False),
        Excess(first=False),
    ]


async def test_content_that_comes_while_its_batch_is_registered_is_not_forgotten(
    engine: AsyncEngine,
) -> None:
    names = [f"batch-{number}" for number in range(30)]
    await assign(engine, *(content(0, name) for name in names))
    for name in names:
        # On both sides of the registration, so that one of them is beside it.
        await asyncio.gather(
            assign(engine, content(1, name)),
            register(engine, batch_id=name),
            assign(engine, content(2, name)),
        )
    assert Counter(each.key for each in await written(engine, SLOT_ASSIGNED)) == dict.fromkeys(names, 3)
    assert len(await written(engine, PROVISIONING_COMPLETED)) == len(names)


async def test_a_second_registration_is_nothing(engine: AsyncEngine, batch: str) -> None:
    assert batch
    await assign(engine, content())
    assert not await register(engine)
    assert len(await written(engine)) == 2


@pytest.mark.parametrize(
    ("changed", "reason"), [({"essays": 4}, "other essays"), ({"user_id": "teacher-2"}, "another user")]
)
async def test_a_second_registration_that_says_something_else_is_refused(
    engine: AsyncEngine, batch: str, changed: dict[str, Any], reason: str
) -> None:
    assert batch
    with pytest.raises(Unacceptable, match=reason):
        await register(engine, **changed)


async def test_a_batch_without_a_user_is_told_to_kafka_only(engine: AsyncEngine) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("els_assignments_without_user_total") or 0.0

    await register(engine, user_id=None)
    before = counted()
    await assign(engine, content(1))
    await assign(engine, content(2, text_storage_id="text-1"))
    assert [each.sink for each in await written(engine)] == ["kafka"]
    assert counted() == before + 2
    await register(engine)
    await assign(engine, content(3))
    assert [each.sink for each in await written(engine)] == ["kafka", "kafka", "redis"]


@pytest.mark.parametrize(
    ("name", "on_kafka", "on_redis"),
    [
        ("🎓 uppsats 👩🏽‍🏫.txt", "🎓 uppsats 👩🏽‍🏫.txt", "🎓 uppsats 👩🏽‍🏫.txt"),
        ('"it\'s" \\ `$(x)`\n.txt', '"it\'s" \\ `$(x)`\n.txt', '"it\'s" \\ `$(x)`\n.txt'),
        ("å" * 255, "å" * 255, "å" * 255),
        ("", "unknown", None),
        (None, "unknown", None),
    ],
)
async def test_names_of_files_arrive_as_they_are(
    engine: AsyncEngine, batch: str, name: str | None, on_kafka: str, on_redis: str | None
) -> None:
    assert batch
    await assign(engine, content(original_file_name=name))
    kafka, redis = await written(engine)
    assert kafka.body["data"]["original_file_name"] == on_kafka
    assert redis.body["data"]["filename"] == on_redis


@given(
    uploads=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12), early=st.integers(0, 12)
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_comes_in_whatever_order_slots_fill_from_below_and_are_told_once(
    engine: AsyncEngine, uploads: list[tuple[int, int]], early: int
) -> None:
    batch_id = f"batch-{uuid4()}"
    contents = [content(upload, batch_id, text_storage_id=f"text-{text}") for upload, text in uploads]
    await assign(engine, *contents[:early])
    await register(engine, batch_id=batch_id)
    await assign(engine, *contents[early:])
    told = [each for each in await written(engine, SLOT_ASSIGNED) if each.key == batch_id]
    assert [each.body["data"]["slot_index"] for each in told] == list(range(len(told)))
    for name in ("file_upload_id", "text_storage_id"):
        values = [each.body["data"][name] for each in told]
        assert len(set(values)) == len(values)
    completed = [each for each in await written(engine, PROVISIONING_COMPLETED) if each.key == batch_id]
    assert len(completed) == (len(told) == 3)


@given(
    uploads=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12
    ),
    early=st.integers(0, 12),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_many_in_one_transaction_end_as_one_by_one(
    engine: AsyncEngine, uploads: list[tuple[int, int, int]], early: int
) -> None:
    ends = []
    for at_once in (1, len(uploads)):
        run = uuid4().hex
        contents = [
            content(upload, f"{run}-{number}", text_storage_id=f"text-{text}")
            for number, upload, text in uploads
        ]
        outcomes = await assign_sets(engine, contents[:early], at_once)
        async with engine.begin() as connection:
            both = [Registration(registration(f"{run}-{number}"), uuid4()) for number in range(2)]
            await register_batches(connection, both)
        outcomes += await assign_sets(engine, contents[early:], at_once)
        told = [each for each in await written(engine) if run in each.body["data"]["batch_id"]]
        said = [
            (each.key, each.destination, each.body["data"].get("file_upload_id"))
            for each in sorted(told, key=lambda each: each.body["data"]["batch_id"])
        ]
        ends.append(str([outcomes, said]).replace(run, "run"))
    assert ends[0] == ends[1]


async def assign_sets(
    engine: AsyncEngine, contents: list[EssayContentProvisionedV1], at_once: int
) -> list[SlotOutcome]:
    outcomes = []
    for first in range(0, len(contents), at_once):
        async with engine.begin() as connection:
            some = [Given(each) for each in contents[first : first + at_once]]
            outcomes += [done.outcome for done in await assign_slots(connection, some)]
    return outcomes


async def test_two_sets_of_the_same_batches_never_wait_for_each_other(engine: AsyncEngine) -> None:
    names = [f"batch-{number}" for number in range(40)]

    async def work(order: list[str], number: int) -> None:
        async with engine.begin() as connection:
            await assign_slots(connection, [Given(content(number, name)) for name in order])

    for number in range(0, 20, 2):
        await asyncio.gather(work(names, number), work(names[::-1], number + 1))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM els_contents")) == 20 * len(names)


async def test_an_assignment_takes_less_than_50_ms(engine: AsyncEngine) -> None:
    await register(engine, essays=100)
    seconds = []
    for number in range(100):
        began = time.perf_counter()
        await assign(engine, content(number))
        seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < 0.05


async def test_the_state_of_slots_cannot_contradict_itself(engine: AsyncEngine, batch: str) -> None:
    assert batch
    async with engine.connect() as connection:
        with pytest.raises(Exception, match="els_slots_assigned_has_content"):
            await connection.execute(text("UPDATE els_slots SET state = 'assigned'"))
