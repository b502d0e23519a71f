"""Databases that are not in UTF-8: what a row's bytes are costs that row, and operators see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from outbox import operate
from outbox.operate import Selection
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand, delivered
from tests.relay.traffic import QUICK, SINK, inversions, settings_of, write
from tests.support import sql
from tests.support.postgres import Cluster, migrate


@pytest.fixture
async def encoded(request: pytest.FixtureRequest, postgres: Cluster) -> AsyncIterator[str]:
    """The URL of a migrated database in the encoding that the test asks for."""
    name = f"test_{uuid4().hex[:12]}"
    await postgres.execute(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    try:
        await migrate(postgres.url_of(name))
        yield postgres.url_of(name)
    finally:
        await postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def environment_of(url: str, gate: Gate) -> dict[str, str]:
    return {"OUTBOX_DATABASE_URL": url, **QUICK, **gate.environment(SINK)}


async def insert(db: asyncpg.Connection, column: str, byte: str = r"\351") -> int:
    """A row with a byte in one of its columns that is no UTF-8."""
    columns = {
        "message_id": "gen_random_uuid()",
        "type": "'t'",
        "sink": f"'{SINK}'",
        "destination": "'d'",
        "key": "'k'",
        "headers": "'{}'",
    }
    columns[column] = f"""E'{{"h": "{byte}"}}'""" if column == "headers" else f"E'{byte}'"
    found: int = await db.fetchval(
        f"INSERT INTO outbox ({', '.join(columns)}) VALUES ({', '.join(columns.values())}) RETURNING id"
    )
    return found


@pytest.mark.parametrize("encoded", ["SQL_ASCII"], indirect=True)
@pytest.mark.parametrize("column", ["type", "destination", "key", "headers"])
async def test_a_byte_that_is_no_utf8_costs_its_row(encoded: str, gate: Gate, column: str) -> None:
    environment = environment_of(encoded, gate)
    async with sql.connection(encoded) as db, ByHand.made(environment) as relay:
        before = await write(db, ["k", "good", None], destination="d")
        bad = await insert(db, column)
        after = await write(db, ["k", "good", None], destination="d")
        await delivered(relay, db, but=1)
        await relay.turn()
        assert sorted(gate.arrived) == before + after
        assert inversions(gate.attempts) == []
        reason = await db.fetchval("SELECT last_error FROM outbox_queue WHERE parked_at IS NOT NULL")
        assert reason.startswith("it cannot be read: ")
        await db.execute(r"UPDATE outbox_queue SET last_error = E'na\357ve', first_due_at = 'epoch'")
        async with operate.connect(settings_of(environment)) as operator:
            assert (await operate.status(operator)).needs_attention
            (found,) = (await operate.page(operator, Selection(), limit=10)).deliveries
            (details,) = await operate.show(operator, Selection(ids=[bad]))
        assert (found.id, found.last_error) == (bad, r"na\xefve")
        shown = (
            {"headers": details.headers.get("h")} if column == "headers" else {column: getattr(found, column)}
        )
        assert shown[column] in (r"\xe9", "\ufffd")


@pytest.mark.parametrize("encoded", ["LATIN1"], indirect=True)
async def test_a_reason_that_the_database_has_no_characters_for_is_recorded(encoded: str, gate: Gate) -> None:
    gate.set(Fault(kind="permanent", key="bad", reason="“no” … 🎓"))
    async with sql.connection(encoded) as db, ByHand.made(environment_of(encoded, gate)) as relay:
        await write(db, ["good", "bad", "good"])
        await delivered(relay, db, but=1)
        await relay.turn()
        reason = await db.fetchval("SELECT last_error FROM outbox_queue")
        assert reason == r"\u201cno\u201d \u2026 \U0001f393"
