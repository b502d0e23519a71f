"""Whatever an event may carry: tables, messages and API can answer for it, or it is parked."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outbox.huleedu.els.service import Els
from outbox.huleedu.events import (
    CONTENT_PROVISIONED,
    ESSAYS_REGISTERED,
    PROVISIONING_COMPLETED,
    SLOT_ASSIGNED,
    SPELLCHECK_RESULTS,
)
from outbox.huleedu.ras import Ras
from tests.huleedu.consume.conftest import column, records
from tests.huleedu.ras.test_record import slot, spellcheck
from tests.support.huleedu import CREDENTIALS, content, event, record, registration, written

IDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40
) | st.sampled_from(
    ["a/b", "a/status", "..", ".", "a?b#c", "%2F", "ü" * 40, "'; --", "\u202e", "\x7f\x01", " "]
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("HUGE"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MOMENTS = st.sampled_from(
    [
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "0001-01-01T00:00:00+10:00",
        "2025-07-24T10:00:00",
    ]
)


CARRIED = st.fixed_dictionaries(
    {
        "batch": IDS,
        "essay": IDS,
        "name": st.text(max_size=50),
        "odd": ODD,
        "when": MOMENTS,
        "number": st.integers(),
    }
)


@given(carried=CARRIED)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
async def test_whatever_an_event_may_carry_is_parked_or_answered_for(
    ras: Ras, carried: dict[str, Any]
) -> None:
    batch, essay, odd = carried["batch"], carried["essay"], {"odd": carried["odd"]}
    registered = registration("b", 1).model_dump(mode="json") | {"entity_id": batch, "essay_ids": [essay]}
    checked = spellcheck(batch, 0, "failed", system_metadata={"error_info": odd})
    assigned = slot(batch, 0, original_file_name=carried["name"], slot_index=carried["number"])
    for offset, (topic, data) in enumerate(
        [
            (ESSAYS_REGISTERED, {**registered, "student_prompt_ref": odd}),
            (SLOT_ASSIGNED, {**assigned, "essay_id": essay}),
            (SPELLCHECK_RESULTS, {**checked, "entity_id": essay, "corrections_made": carried["number"]}),
        ]
    ):
        body = json.dumps(event(topic, data, event_timestamp=carried["when"]))
        # A number of more digits than Python writes.
        await ras.receiver.receive(record(topic, body.replace('"HUGE"', "1" * 5_000).encode(), offset))
    transport = httpx.ASGITransport(ras.application())
    async with httpx.AsyncClient(transport=transport, base_url="http://ras", headers=CREDENTIALS) as client:
        response = await client.get(f"/internal/v1/batches/{quote(batch, safe='')}/status")
    registrations = await column(ras.engine, "SELECT batch_id FROM ras_batches")
    assert response.status_code == (200 if batch in registrations else 404)
    assert response.status_code == 404 or response.json()["batch_id"] == batch


async def test_the_longest_ids_of_the_largest_batch_fit_into_what_tells_of_them(els: Els) -> None:
    ids = [f"{number:04}" + "😀" * 62 for number in range(1_000)]
    data = registration("b", 1_000).model_dump(mode="json") | {"essay_ids": ids}
    await els.receiver.receive(record(ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, data)))
    uploads = [
        event(CONTENT_PROVISIONED, content(number, "b", text_storage_id=f"{number:04}" + "😀" * 62))
        for number in range(1_000)
    ]
    for first in range(0, 1_000, 200):
        await els.receiver.receive(*records(CONTENT_PROVISIONED, *uploads[first : first + 200], first=first))
    (completed,) = await written(els.engine, PROVISIONING_COMPLETED)
    assert completed.body["data"]["provisioned_count"] == 1_000
    too_long = event(
        CONTENT_PROVISIONED, {**content(0, "b").model_dump(mode="json"), "file_upload_id": "😀" * 64}
    )
    await els.receiver.receive(record(CONTENT_PROVISIONED, too_long))
    assert await column(els.engine, "SELECT reason FROM huleedu_parked_input") == [
        "data.file_upload_id: has more than 255 bytes as JSON writes it"
    ]
