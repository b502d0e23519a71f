"""What is old is forgotten, what a person asks for is done, and what is there is counted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result
from sqlalchemy import text

from outbox.cli import main
from outbox.huleedu.els import store
from outbox.huleedu.els.metrics import REGISTRY as ELS_REGISTRY
from outbox.huleedu.els.metrics import PerUser
from outbox.huleedu.els.service import Els
from outbox.huleedu.events import CONTENT_PROVISIONED, ESSAYS_REGISTERED, SLOT_ASSIGNED
from outbox.huleedu.ras import Ras
from outbox.huleedu.ras.metrics import REGISTRY
from outbox.huleedu.ras.record import forget_names
from tests.huleedu.consume.conftest import column
from tests.huleedu.ras.test_record import slot
from tests.support.huleedu import content, event, record, registration
from tests.support.waiting import until


async def test_names_of_files_are_forgotten_in_time(ras: Ras, els: Els) -> None:
    for service, topic, body in (
        (els, ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, registration("b", 1))),
        (els, CONTENT_PROVISIONED, event(CONTENT_PROVISIONED, content(0, "b"))),
        (els, CONTENT_PROVISIONED, event(CONTENT_PROVISIONED, content(1, "b"))),
        (els, CONTENT_PROVISIONED, event(CONTENT_PROVISIONED, content(2, "later"))),
        (ras, SLOT_ASSIGNED, event(SLOT_ASSIGNED, slot("b", 0))),
    ):
        await service.receiver.receive(record(topic, body))
    for forget in (store.forget_names, forget_names):
        async with els.engine.begin() as connection:
            assert await forget(connection, timedelta(days=30_000), 100) == 0
        async with els.engine.begin() as connection:
            assert await forget(connection, timedelta(days=-1), 100) == (
                3 if forget is store.forget_names else 1
            )
    names = await column(els.engine, "SELECT original_file_name FROM els_slots")
    names += await column(els.engine, "SELECT event ->> 'original_file_name' FROM els_contents")
    names += await column(els.engine, "SELECT filename FROM ras_slots")
    assert names == [None] * 4
    # What waits is given its slot all the same.
    await els.receiver.receive(record(ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, registration("later", 1))))
    assert Counter(await column(els.engine, "SELECT state FROM els_slots")) == {"assigned": 2}


@pytest.fixture
def outbox(huleedu_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `outbox huleedu parked …` on the test's database."""
    monkeypatch.chdir(tmp_path)

    async def run(*arguments: str) -> Result:
        command, env = ["huleedu", "parked", *arguments], {"OUTBOX_DATABASE_URL": huleedu_database}
        # A command has a loop of its own.
        return await asyncio.to_thread(CliRunner().invoke, main, command, env=env)

    return run


async def test_parked_input_is_listed_shown_tried_again_and_dropped(
    ras: Ras, outbox: Callable[..., Any]
) -> None:
    other = event(ESSAYS_REGISTERED, registration("b", 1, "teacher-2"))
    bodies: list[Any] = [event(ESSAYS_REGISTERED, registration("b", 1)), other, b"? \x1b[31m"]
    for offset, body in enumerate(bodies):
        await ras.receiver.receive(record(ESSAYS_REGISTERED, body, offset))
    listed = (await outbox("list")).output
    assert "the batch is registered already, with another user" in listed
    assert "unreadable" in listed
    assert json.loads((await outbox("list", "--kind", "refused", "--json")).output)["rows"] == 1
    numbers = await column(ras.engine, "SELECT id FROM huleedu_parked_input ORDER BY id")
    shown = (await outbox("show", str(numbers[1]))).output
    assert "? \\x1b[31m" in shown
    assert (await outbox("show", "999")).exit_code == 1
    assert (await outbox("drop")).exit_code == 2
    upkeeper = asyncio.create_task(ras.consumer._upkeep.run())
    try:
        # In vain, as long as the cause is there.
        assert (await outbox("retry", "--all")).output.startswith("2 will be tried again")
        await until(lambda: asked_for(ras, 0))
        assert await column(ras.engine, "SELECT id FROM huleedu_parked_input ORDER BY id") == numbers
        async with ras.engine.begin() as connection:
            await connection.execute(text("UPDATE ras_batches SET user_id = 'teacher-2'"))
        assert (await outbox("retry", "--reason", "another user")).output.startswith("1 will")
        await until(lambda: is_parked(ras, numbers[1:]))
        assert (await outbox("drop", str(numbers[1]))).output == "1 dropped.\n"
    finally:
        upkeeper.cancel()
        await asyncio.wait([upkeeper])
    await ras.receiver.receive(record(ESSAYS_REGISTERED, b"?", 9))
    async with ras.engine.connect() as connection:
        await ras.consumer._upkeep._count(connection)
    assert REGISTRY.get_sample_value("ras_parked_input", {"kind": "unreadable"}) == 1


async def test_a_topic_made_anew_parks_beside_what_was_in_its_places_before(
    ras: Ras,
) -> None:
    for value in (b"of the old topic", b"of the new one", b"of the new one"):
        await ras.receiver.receive(record(ESSAYS_REGISTERED, value, 7))
    kept = await column(
        ras.engine, "SELECT convert_from(value, 'UTF8') FROM huleedu_parked_input ORDER BY id"
    )
    assert kept == ["of the old topic", "of the new one"]


async def asked_for(ras: Ras, number: int) -> bool:
    rows = await column(ras.engine, "SELECT count(*) FROM huleedu_parked_input WHERE retry_at IS NOT NULL")
    return bool(rows == [number])


async def is_parked(ras: Ras, numbers: list[int]) -> bool:
    return await column(ras.engine, "SELECT id FROM huleedu_parked_input ORDER BY id") == numbers


async def test_parked_input_that_fails_again_and_again_keeps_no_other_from_its_retry(ras: Ras) -> None:
    failing = (SLOT_ASSIGNED, event(SLOT_ASSIGNED, slot("b", 0)))
    good = (ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, registration("b", 1)))
    asked = [*[failing] * 30, ("no longer read", {}), good]
    async with ras.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE ras_slots RENAME TO away"))
        await connection.execute(
            text(
                "INSERT INTO huleedu_parked_input"
                " (consumer, topic, partition, partition_offset, value, headers, reason, retry_at)"
                " VALUES ('result-aggregator-service', :topic, 0, :offset, :body, '{}', '?', now())"
            ),
            [
                {"topic": topic, "offset": offset, "body": json.dumps(body).encode()}
                for offset, (topic, body) in enumerate(asked)
            ],
        )
    upkeeper = asyncio.create_task(ras.consumer._upkeep.run())
    await until(lambda: is_registered(ras))
    upkeeper.cancel()
    await asyncio.wait([upkeeper])
    assert await column(ras.engine, "SELECT count(*) FROM huleedu_parked_input") == [31]
    assert await column(ras.engine, "SELECT reason FROM huleedu_parked_input WHERE retry_at IS NULL") == [
        "this consumer does not read the topic"
    ]


async def is_registered(ras: Ras) -> bool:
    return await column(ras.engine, "SELECT batch_id FROM ras_batches") == ["b"]


async def test_a_database_without_huleedus_tables_says_what_to_do(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)
    result = await asyncio.to_thread(CliRunner().invoke, main, ["huleedu", "parked", "list"])
    assert result.exit_code == 1
    assert "alembic -n huleedu upgrade head" in result.output


async def test_what_a_chore_fails_of_is_told_and_the_others_go_on(
    ras: Ras,
) -> None:
    async with ras.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE outbox_inbox RENAME TO away"))
        await connection.execute(
            text(
                "INSERT INTO huleedu_parked_input (consumer, topic, partition, partition_offset, headers,"
                " reason, parked_at) VALUES"
                " ('result-aggregator-service', 't', 0, 0, '{}', '?', now() - interval '91 days')"
            )
        )
    with structlog.testing.capture_logs() as lines:
        upkeeper = asyncio.create_task(ras.consumer._upkeep.run())
        await until(lambda: is_parked(ras, []))
        await until(lambda: told(lines))
        upkeeper.cancel()
        await asyncio.wait([upkeeper])


async def told(lines: Any) -> bool:
    return any((each["event"], each.get("chore")) == ("upkeep.failed", "prune the inbox") for each in lines)


async def test_content_that_waits_is_counted(els: Els) -> None:
    body = event(CONTENT_PROVISIONED, content(0, "later"))
    await els.receiver.receive(record(CONTENT_PROVISIONED, body))
    async with els.engine.connect() as connection:
        await els._count(connection)
    assert ELS_REGISTRY.get_sample_value("els_content_waiting") == 1
    assert (ELS_REGISTRY.get_sample_value("els_content_waiting_oldest_seconds") or 0) > 0


def test_how_much_users_get_is_a_histogram_over_them() -> None:
    now = 0.0
    before = ELS_REGISTRY.get_sample_value("els_user_notifications_sum") or 0.0
    users = ELS_REGISTRY.get_sample_value("els_user_notifications_count") or 0.0
    per_user = PerUser(lambda: now)
    for channel in ("ws:a", "ws:a", "ws:a", "ws:b"):
        per_user.add(channel)
    now = 61.0
    per_user.turn()
    assert ELS_REGISTRY.get_sample_value("els_user_notifications_count") == users + 2
    assert ELS_REGISTRY.get_sample_value("els_user_notifications_sum") == before + 4
