"""Events in any order, late, twice or contradictory: the same is known in the end."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.huleedu.consume import Receiver
from outbox.huleedu.events import (
    ASSESSMENT_PUBLISHED,
    ESSAYS_REGISTERED,
    EXCESS_CONTENT,
    SLOT_ASSIGNED,
    SPELLCHECK_RESULTS,
)
from outbox.huleedu.events.fields import Model
from outbox.huleedu.ras import BatchStatus
from outbox.huleedu.ras.read import status_of
from tests.support.huleedu import essay_ids, event, record, registration

START = datetime(2025, 7, 24, 10, 0, tzinfo=UTC)

Event = tuple[str, dict[str, Any]]


def slot(batch: str, number: int, **changed: Any) -> dict[str, Any]:
    values = {
        "event": "essay.slot.assigned",
        "batch_id": batch,
        "essay_id": f"{batch}/essay-{number}",
        "file_upload_id": f"upload-{number}",
        "text_storage_id": f"text-{number}",
        "original_file_name": f"{number}.txt",
        "slot_index": number,
        "correlation_id": str(uuid4()),
        "timestamp": START.isoformat(),
    }
    return {**values, **changed}


def spellcheck(
    batch: str, number: int, status: str = "spellchecked_success", **changed: Any
) -> dict[str, Any]:
    values = {
        "entity_id": f"{batch}/essay-{number}",
        "batch_id": batch,
        "status": status,
        "corrections_made": number,
        "corrected_text_storage_id": f"corrected-{number}",
        "system_metadata": {"error_info": {"error_code": "BROKEN"} if "fail" in status else {}},
    }
    return {**values, **changed}


def excess(batch: str, number: int) -> dict[str, Any]:
    return {
        "batch_id": batch,
        "original_file_name": f"{number}.txt",
        "text_storage_id": f"text-{number}",
        "file_upload_id": f"upload-{number}",
        "correlation_id": str(uuid4()),
    }


def assessment(batch: str, *ranks: int, **changed: Any) -> dict[str, Any]:
    results = [
        {"essay_id": f"{batch}/essay-{number}", "rank": rank, "bt_score": -float(rank)}
        for number, rank in enumerate(ranks)
    ]
    anchor = {"essay_id": "anchor", "rank": 99, "bt_score": 0.0, "is_anchor": True}
    return {
        "batch_id": batch,
        "essay_results": [*results, anchor],
        "assignment_id": "assignment-1",
        **changed,
    }


def story(batch: str) -> list[Event]:
    """What happens to a batch of two essays; one's spellcheck failed at first, and they were ranked twice."""
    said: list[tuple[str, Model | Mapping[str, Any]]] = [
        (ESSAYS_REGISTERED, registration(batch, 2)),
        (SLOT_ASSIGNED, slot(batch, 0)),
        (SLOT_ASSIGNED, slot(batch, 1, original_file_name="unknown")),
        (SPELLCHECK_RESULTS, spellcheck(batch, 0)),
        (SPELLCHECK_RESULTS, spellcheck(batch, 1, "spellcheck_failed", corrected_text_storage_id=None)),
        (SPELLCHECK_RESULTS, spellcheck(batch, 1)),
        (EXCESS_CONTENT, excess(batch, 3)),
        (EXCESS_CONTENT, excess(batch, 2)),
        (ASSESSMENT_PUBLISHED, assessment(batch, 1, 2)),
        (ASSESSMENT_PUBLISHED, assessment(batch, 2, 1)),
    ]
    return [
        (topic, event(topic, data, event_timestamp=(START + timedelta(minutes=minute)).isoformat()))
        for minute, (topic, data) in enumerate(said)
    ]


async def tell(receiver: Receiver, events: Sequence[Event]) -> None:
    for topic, each in events:
        await receiver.receive(record(topic, each))


async def known(engine: AsyncEngine, batch: str) -> BatchStatus:
    status = await status_of(engine, batch)
    assert status is not None
    return status


def anonymous(status: BatchStatus, batch: str) -> str:
    """An answer without the batch's name, to compare with that of another batch."""
    return status.model_dump_json().replace(batch, "batch")


async def test_what_is_known_in_the_end(engine: AsyncEngine, receiver: Receiver) -> None:
    await tell(receiver, story("b"))
    status = await known(engine, "b")
    first, second = status.essays
    assert (status.overall_status, status.completed_essay_count) == ("completed_successfully", 2)
    assert (first.filename, first.cj_rank, first.cj_score) == ("0.txt", 2, -2.0)
    assert (second.filename, second.cj_rank, second.spellcheck_status) == (None, 1, "completed")
    assert second.spellcheck_error_detail is None
    assert status.assignment_id == "assignment-1"
    assert status.processing_completed_at == status.last_updated == START + timedelta(minutes=9)
    assert [each.model_dump() for each in status.excess] == [
        {"file_upload_id": "upload-3", "filename": "3.txt", "text_storage_id": "text-3"},
        {"file_upload_id": "upload-2", "filename": "2.txt", "text_storage_id": "text-2"},
    ]


@given(order=st.permutations(range(10)), again=st.lists(st.integers(0, 9), max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_order_ends_alike(
    engine: AsyncEngine, receiver: Receiver, order: list[int], again: list[int]
) -> None:
    usual, shuffled = f"usual-{uuid4()}", f"shuffled-{uuid4()}"
    await tell(receiver, story(usual))
    events = story(shuffled)
    await tell(receiver, [events[number] for number in (*order, *again)])
    assert anonymous(await known(engine, shuffled), shuffled) == anonymous(await known(engine, usual), usual)


async def test_every_order_of_one_event_of_each_kind_ends_alike(
    engine: AsyncEngine, receiver: Receiver
) -> None:
    answers = set()
    for order in itertools.permutations((0, 1, 3, 4, 6)):
        batch = f"batch-{uuid4()}"
        events = story(batch)
        await tell(receiver, [events[number] for number in order])
        answers.add(anonymous(await known(engine, batch), batch))
    assert len(answers) == 1


async def test_of_two_at_the_same_time_one_counts_in_every_order(
    engine: AsyncEngine, receiver: Receiver
) -> None:
    low, high = (str(UUID(int=number, version=4)) for number in (1, 2))
    for batch, order in (("a", (low, high)), ("b", (high, low))):
        await tell(receiver, [(ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, registration(batch, 1)))])
        for event_id in order:
            data = spellcheck(batch, 0, corrections_made=1 if event_id == low else 2)
            said_at = START.isoformat()
            # The same ids serve two batches here, which the inbox must not know.
            await forget(engine)
            await tell(
                receiver,
                [
                    (
                        SPELLCHECK_RESULTS,
                        event(SPELLCHECK_RESULTS, data, event_id=event_id, event_timestamp=said_at),
                    )
                ],
            )
        assert (await known(engine, batch)).essays[0].spellcheck_correction_count == 2


async def test_a_batch_is_not_known_before_its_registration(engine: AsyncEngine, receiver: Receiver) -> None:
    await tell(receiver, story("b")[1:])
    assert await status_of(engine, "b") is None


async def test_an_essay_that_is_not_of_the_batch_is_not_told(engine: AsyncEngine, receiver: Receiver) -> None:
    await tell(receiver, [*story("b"), (SLOT_ASSIGNED, event(SLOT_ASSIGNED, slot("b", 7)))])
    assert [essay.essay_id for essay in (await known(engine, "b")).essays] == essay_ids("b", 2)


async def test_a_missing_user_may_come_later(engine: AsyncEngine, receiver: Receiver) -> None:
    for user_id in (None, "teacher-1", None):
        data = registration("b", 1, user_id)
        await tell(receiver, [(ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, data))])
    assert (await known(engine, "b")).user_id == "teacher-1"


async def test_a_contradiction_is_parked_and_changes_nothing(engine: AsyncEngine, receiver: Receiver) -> None:
    for data in (registration("b", 1), registration("b", 2), registration("b", 1, "teacher-2")):
        await receiver.receive(
            record(
                ESSAYS_REGISTERED,
                event(ESSAYS_REGISTERED, data),
                offset=data.expected_essay_count + len(data.user_id or ""),
            )
        )
    status = await known(engine, "b")
    assert (status.essay_count, status.user_id) == (1, "teacher-1")


async def test_what_json_cannot_say_again_is_kept_or_parked(engine: AsyncEngine, receiver: Receiver) -> None:
    odd = {"error_code": "NUL \0 in it", "nested": [{"deep": None}]}
    data = spellcheck("b", 0, "spellcheck_failed", system_metadata={"error_info": odd})
    await tell(receiver, [(ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, registration("b", 1)))])
    await tell(receiver, [(SPELLCHECK_RESULTS, event(SPELLCHECK_RESULTS, data))])
    assert (await known(engine, "b")).essays[0].spellcheck_error_detail == odd
    not_a_number = json.dumps(
        event(SPELLCHECK_RESULTS, {**data, "system_metadata": {"error_info": {"x": float("nan")}}})
    )
    await receiver.receive(record(SPELLCHECK_RESULTS, not_a_number.encode(), offset=9))
    async with engine.connect() as connection:
        reasons = (await connection.execute(text("SELECT reason FROM huleedu_parked_input"))).scalars().all()
    assert [reason.partition(":")[0] for reason in reasons] == ["the database refuses it"]


async def forget(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM outbox_inbox"))
