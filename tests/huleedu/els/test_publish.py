"""HuleEdu's dual publish, and the trace that goes on in it."""

from __future__ import annotations

from uuid import uuid4

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from outbox.huleedu.els import assign_slot, publish_essay_slot_assigned
from outbox.huleedu.events import EssaySlotAssignedV1
from outbox.huleedu.tracing import continued
from tests.support.huleedu import content, written

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def assigned(batch_id: str, **changed: object) -> EssaySlotAssignedV1:
    """As HuleEdu's code makes it, which knows no slot_index."""
    values = {
        "batch_id": batch_id,
        "essay_id": "essay-456",
        "file_upload_id": "upload-789",
        "text_storage_id": "text-012",
        "original_file_name": "student_essay.txt",
        "correlation_id": uuid4(),
    }
    return EssaySlotAssignedV1.model_validate({**values, **changed})


async def test_one_call_writes_both_deliveries_of_one_message(engine: AsyncEngine, batch: str) -> None:
    event, correlation_id = assigned(batch), uuid4()
    async with AsyncSession(engine) as session, session.begin():
        message_id = await publish_essay_slot_assigned(session, event, correlation_id)
    kafka, redis = await written(engine)
    assert kafka.message_id == redis.message_id == str(message_id)
    assert kafka.body["correlation_id"] == redis.body["correlation_id"] == str(correlation_id)
    assert kafka.body["data"] == event.model_dump(mode="json")
    assert redis.body["data"]["filename"] == "student_essay.txt"
    assert redis.body["data"]["slot_index"] is None


async def test_a_batch_that_is_not_known_has_nobody_to_notify(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await publish_essay_slot_assigned(connection, assigned("batch-9"), uuid4())
    assert [each.sink for each in await written(engine)] == ["kafka"]


@pytest.mark.parametrize(
    ("carriers", "expected"),
    [
        ([{"traceparent": PARENT}], {"traceparent": PARENT}),
        ([{}, {"traceparent": PARENT, "tracestate": "a=b"}], {"traceparent": PARENT, "tracestate": "a=b"}),
        ([{"traceparent": PARENT, "tracestate": "ä"}], {"traceparent": PARENT}),
        ([{"traceparent": "00-nonsense"}, {"tracestate": "a=b"}], None),
        ([{"traceparent": 1}], None),
    ],
)
async def test_the_trace_of_what_came_goes_on(
    engine: AsyncEngine, batch: str, carriers: list[dict[str, object]], expected: dict[str, str] | None
) -> None:
    assert batch
    with continued(*carriers):
        async with engine.begin() as connection:
            await assign_slot(connection, content())
    kafka, redis = await written(engine)
    assert kafka.body["metadata"] == expected
    for each in (kafka, redis):
        found = {name: value for name, value in each.headers.items() if name.startswith("trace")}
        assert found == (expected or {})


async def test_a_span_of_our_own_goes_before(engine: AsyncEngine, batch: str) -> None:
    assert batch
    span = NonRecordingSpan(SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1)))
    with continued({"traceparent": PARENT}), trace.use_span(span):
        async with engine.begin() as connection:
            await assign_slot(connection, content())
    kafka, _ = await written(engine)
    ours = f"00-{7:032x}-{8:016x}-01"
    assert kafka.body["metadata"] == {"traceparent": ours}
    assert kafka.headers["traceparent"] == ours
