"""The answer, as a file: what the golden events lead to."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import httpx

from outbox.huleedu.consume import Receiver
from outbox.huleedu.events import (
    ASSESSMENT_PUBLISHED,
    ESSAYS_REGISTERED,
    EXCESS_CONTENT,
    SLOT_ASSIGNED,
    SPELLCHECK_RESULTS,
)
from tests.huleedu.ras.conftest import ask
from tests.support.huleedu import record

GOLDEN = Path(__file__).parent.parent / "formats" / "golden"


async def test_the_golden_events_lead_to_the_golden_answer(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    topics = (EXCESS_CONTENT, ESSAYS_REGISTERED, SLOT_ASSIGNED, SPELLCHECK_RESULTS, ASSESSMENT_PUBLISHED)
    for number, topic in enumerate(topics):
        # Two of them are of one upload, and so have one id.
        event = json.loads((GOLDEN / f"{topic}.json").read_bytes())
        event["event_id"] = str(UUID(int=UUID(event["event_id"]).int + number))
        await receiver.receive(record(topic, event))
    answer = await ask(client, "batch-123")
    golden = json.loads((GOLDEN / "ras.batch_status.json").read_text("utf-8"))
    assert json.dumps(answer, indent=2) == json.dumps(golden, indent=2)
