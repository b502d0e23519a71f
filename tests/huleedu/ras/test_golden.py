"""The answer, as a file: what the golden events lead to."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from outbox.huleedu.consume import Receiver
from outbox.huleedu.events import ASSESSMENT_PUBLISHED, ESSAYS_REGISTERED, SLOT_ASSIGNED, SPELLCHECK_RESULTS
from tests.huleedu.ras.conftest import ask
from tests.support.huleedu import record

GOLDEN = Path(__file__).parent.parent / "formats" / "golden"


async def test_the_golden_events_lead_to_the_golden_answer(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    for topic in (ESSAYS_REGISTERED, SLOT_ASSIGNED, SPELLCHECK_RESULTS, ASSESSMENT_PUBLISHED):
        await receiver.receive(record(topic, (GOLDEN / f"{topic}.json").read_bytes()))
    answer = await ask(client, "batch-123")
    golden = json.loads((GOLDEN / "ras.batch_status.json").read_text("utf-8"))
    assert json.dumps(answer, indent=2) == json.dumps(golden, indent=2)
