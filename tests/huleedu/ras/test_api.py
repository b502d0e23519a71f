"""What RAS answers, to whom, and what an answer costs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from outbox.devstack.server import free_port
from outbox.huleedu import database
from outbox.huleedu.consume import Receiver
from outbox.huleedu.events import ASSESSMENT_PUBLISHED, ESSAYS_REGISTERED, SLOT_ASSIGNED, SPELLCHECK_RESULTS
from outbox.huleedu.ras import RasSettings
from outbox.huleedu.ras.api import application
from tests.huleedu.ras.conftest import ask
from tests.huleedu.ras.test_record import assessment, slot, spellcheck, tell
from tests.support.huleedu import CREDENTIALS, event, registration

BATCH_FIELDS = {
    "batch_id", "user_id", "assignment_id", "overall_status", "essay_count", "completed_essay_count",
    "failed_essay_count", "requested_pipeline", "current_phase", "essays", "excess", "created_at",
    "last_updated", "processing_started_at", "processing_completed_at", "student_prompt_ref",
}  # fmt: skip
ESSAY_FIELDS = {
    "essay_id", "file_upload_id", "filename", "slot_index", "spellcheck_status",
    "spellcheck_correction_count", "spellcheck_corrected_text_storage_id", "spellcheck_error_detail",
    "cj_assessment_status", "cj_rank", "cj_score", "cj_assessment_error_detail", "last_updated",
}  # fmt: skip

STATUS = "/internal/v1/batches/batch-1/status"


async def register(receiver: Receiver, essays: int = 1, batch: str = "batch-1") -> None:
    await tell(receiver, [(ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, registration(batch, essays)))])


async def test_every_field_of_the_contract_is_there(client: httpx.AsyncClient, receiver: Receiver) -> None:
    await register(receiver)
    answer = await ask(client, "batch-1")
    assert answer.keys() == BATCH_FIELDS
    assert answer["essays"][0].keys() == ESSAY_FIELDS
    assert answer["essays"][0]["slot_index"] is None


@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        ("no slot", ("pending_content", None, 0, 0)),
        ("1 slot", ("pending_content", None, 0, 0)),
        ("2 slots", ("ready", None, 0, 0)),
        ("no slot +", ("processing", "spellcheck", 0, 0)),
        ("2 slots +", ("processing", "spellcheck", 0, 0)),
        ("2 slots ++", ("processing", "cj_assessment", 0, 0)),
        ("2 slots -+", ("processing", "cj_assessment", 0, 1)),
        ("2 slots 2 ranks", ("processing", "spellcheck", 0, 0)),
        ("2 slots ++ 1 rank", ("processing", "cj_assessment", 1, 0)),
        ("2 slots ++ 2 ranks", ("completed_successfully", None, 2, 0)),
        ("2 slots +- 1 rank", ("completed_with_failures", None, 1, 1)),
        ("2 slots --", ("failed", None, 0, 2)),
    ],
)
async def test_how_a_batch_is_follows_from_its_essays(
    client: httpx.AsyncClient, receiver: Receiver, happened: str, expected: tuple[Any, ...]
) -> None:
    await register(receiver, 2)
    slots, spellchecks, ranks = numbers(happened)
    data: list[tuple[str, dict[str, Any]]] = [
        (SLOT_ASSIGNED, slot("batch-1", number)) for number in range(slots)
    ]
    data += [(SPELLCHECK_RESULTS, spellcheck("batch-1", n, status)) for n, status in enumerate(spellchecks)]
    if ranks:
        data.append((ASSESSMENT_PUBLISHED, assessment("batch-1", *range(1, ranks + 1))))
    await tell(receiver, [(topic, event(topic, each)) for topic, each in data])
    answer = await ask(client, "batch-1")
    names = ("overall_status", "current_phase", "completed_essay_count", "failed_essay_count")
    assert tuple(answer[name] for name in names) == expected
    over = expected[0] in ("completed_successfully", "completed_with_failures", "failed")
    assert (answer["processing_completed_at"] is not None) == over
    assert (answer["processing_started_at"] is not None) == bool(spellchecks or ranks)


def numbers(happened: str) -> tuple[int, list[str], int]:
    """Slots, spellchecks and ranks of a case such as `2 slots +- 1 rank`."""
    match = re.fullmatch(r"(?P<slots>no|\d) slots?(?P<spellchecks> [+-]+)?( (?P<ranks>\d) ranks?)?", happened)
    assert match
    statuses = {"+": "spellchecked_success", "-": "spellcheck_failed"}
    spellchecks = [statuses[sign] for sign in (match["spellchecks"] or "").strip()]
    return int(match["slots"].replace("no", "0")), spellchecks, int(match["ranks"] or 0)


@pytest.mark.parametrize("essays", [1, 100])
async def test_an_answer_costs_one_statement_and_less_than_200_ms(
    client: httpx.AsyncClient, receiver: Receiver, engine: AsyncEngine, essays: int
) -> None:
    await register(receiver, essays)
    for number in range(essays):
        await tell(receiver, [(SLOT_ASSIGNED, event(SLOT_ASSIGNED, slot("batch-1", number)))])
    await ask(client, "batch-1")
    seconds = []
    for _ in range(5):
        with counted(engine) as statements:
            began = time.perf_counter()
            assert len((await ask(client, "batch-1"))["essays"]) == essays
            seconds.append(time.perf_counter() - began)
        assert len(statements) == 1
    assert min(seconds) < 0.2


@pytest.mark.parametrize(
    "changed",
    [
        {"X-Internal-API-Key": None},
        {"X-Service-ID": None},
        {"X-Internal-API-Key": None, "X-Service-ID": None},
        {"X-Internal-API-Key": ""},
        {"X-Internal-API-Key": "another key of the same kind"},
        {"X-Internal-API-Key": CREDENTIALS["X-Internal-API-Key"][:-1]},
        {"X-Internal-API-Key": "schlüssel"},
        {"X-Service-ID": "somebody"},
        {"X-Service-ID": "api-gateway-service, web-page"},
    ],
)
async def test_without_credentials_nothing_is_said(
    app: FastAPI, receiver: Receiver, engine: AsyncEngine, changed: dict[str, str | None]
) -> None:
    await register(receiver)
    given = {**CREDENTIALS, **changed}
    headers = [(name.encode(), value.encode()) for name, value in given.items() if value is not None]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ras") as client:
        with counted(engine) as statements:
            response = await client.get(STATUS, headers=headers)
    assert response.status_code == 401
    assert response.json() == {"error": "Missing or invalid credentials"}
    assert statements == []


@pytest.mark.parametrize("batch_id", ["batch-9", "%00", "%F0%9F%8E%93", "x" * 5_000, "%2E%2E", "' OR 1=1"])
async def test_a_batch_that_is_not_known_is_404(client: httpx.AsyncClient, batch_id: str) -> None:
    response = await client.get(f"/internal/v1/batches/{batch_id}/status")
    assert response.status_code == 404
    assert response.json() == {"error": "Batch not found"}


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        ("req-1:a/b.c", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("två", False),
        ("a b", False),
        (None, False),
    ],
)
async def test_a_correlation_id_is_echoed_within_limits(
    client: httpx.AsyncClient, given: str | None, *, echoed: bool
) -> None:
    headers = [] if given is None else [(b"X-Correlation-ID", given.encode())]
    response = await client.get(STATUS, headers=headers)
    answered = response.headers["X-Correlation-ID"]
    assert answered == given if echoed else UUID(answered)


async def test_other_paths_and_methods_are_refused_in_the_same_form(client: httpx.AsyncClient) -> None:
    assert (await client.get("/internal/v1/batches")).json() == {"error": "Not Found"}
    refused = await client.post(STATUS)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")
    assert refused.json() == {"error": "Method Not Allowed"}


async def test_without_its_database_it_is_503(settings: RasSettings) -> None:
    engine = create_async_engine(f"postgresql+asyncpg://nobody:x@127.0.0.1:{free_port()}/x")
    app = application(settings, engine)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ras") as client:
        response = await client.get(STATUS, headers=CREDENTIALS)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert "error" in response.json()


async def test_it_survives_a_restart_of_its_database(
    client: httpx.AsyncClient, receiver: Receiver, huleedu_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_RESTED_SECONDS", 0.0)
    await register(receiver)
    await ask(client, "batch-1")
    other = await asyncpg.connect(huleedu_database)
    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND datname = current_database()"
    )
    await other.close()
    await ask(client, "batch-1")


@contextmanager
def counted(engine: AsyncEngine) -> Iterator[list[str]]:
    """The statements that are sent within the block."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sqlalchemy_event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sqlalchemy_event.remove(engine.sync_engine, "before_cursor_execute", note)
