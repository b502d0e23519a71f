"""What the check says of what no consumer saw, by what the outbox says became of it."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID, uuid4

import pytest

from outbox import Message, Settings, write
from outbox.demo.check import check, drain
from outbox.demo.ledger import Ledger
from outbox.operate import connect
from tests.support import sql

SETTLE = """
    WITH gone AS (DELETE FROM outbox_queue RETURNING id)
    INSERT INTO outbox_receipts (id, outcome, attempts, receivers) SELECT id, $1, 0, $2 FROM gone
"""
PARK = "UPDATE outbox_queue SET parked_at = now(), last_error = 'too large'"


@pytest.fixture
def settings(database: str) -> Settings:
    return Settings.model_validate({"database_url": database})


async def written(settings: Settings, sink: str) -> tuple[Ledger, UUID]:
    """A ledger with one message, which is committed."""
    ledger, message_id = Ledger(sink), uuid4()
    ledger.enter("key", message_id)
    async with connect(settings) as connection, connection.begin():
        message = Message(type="t", sink=sink, destination="d", key="key", payload={}, message_id=message_id)
        await write(connection, message, settings=settings)
    return ledger, message_id


async def test_all_that_arrived_is_well(settings: Settings) -> None:
    ledger, message_id = await written(settings, "kafka")
    ledger.see("key", message_id)
    finding = await check(settings, ledger, unsure=(), in_full=True)
    assert finding.well
    assert finding.text.startswith("1 of 1 arrived; in order for each of 1 batches; none twice")


async def test_pending_is_a_fault_only_when_there_was_time(settings: Settings) -> None:
    ledger, _ = await written(settings, "kafka")
    in_full = await check(settings, ledger, unsure=(), in_full=True)
    hurried = await check(settings, ledger, unsure=(), in_full=False)
    assert "1 still in the outbox" in in_full.text
    assert (in_full.well, hurried.well) == (False, True)


class Settled(NamedTuple):
    sink: str
    outcome: str
    receivers: int | None
    told: str
    well: bool


@pytest.mark.parametrize(
    "case",
    [
        Settled("kafka", "delivered", None, "1 LOST", well=False),
        Settled("redis", "delivered", 1, "1 LOST", well=False),
        Settled("redis", "delivered", 0, "1 published while nobody was subscribed", well=True),
        Settled("redis", "expired", None, "1 expired before they could be sent", well=True),
        Settled("kafka", "skipped", None, "1 skipped by an operator", well=True),
    ],
)
async def test_what_is_settled_and_was_not_seen(settings: Settings, database: str, case: Settled) -> None:
    ledger, _ = await written(settings, case.sink)
    async with sql.connection(database) as connection:
        await connection.execute(SETTLE, case.outcome, case.receivers)
    await drain(settings, [ledger], patience=10)
    finding = await check(settings, ledger, unsure=(), in_full=True)
    assert case.told in finding.text
    assert finding.well is case.well


async def test_parked_is_a_fault(settings: Settings, database: str) -> None:
    ledger, _ = await written(settings, "kafka")
    async with sql.connection(database) as connection:
        await connection.execute(PARK)
    finding = await check(settings, ledger, unsure=(), in_full=False)
    assert "1 parked" in finding.text
    assert not finding.well


async def test_what_is_nowhere_was_never_committed_or_is_lost(settings: Settings) -> None:
    ledger, message_id = Ledger("kafka"), uuid4()
    ledger.enter("key", message_id)
    unsure = await check(settings, ledger, unsure={message_id}, in_full=True)
    sure = await check(settings, ledger, unsure=(), in_full=True)
    assert (unsure.well, sure.well) == (True, False)
    assert "1 never committed" in unsure.text
    assert "1 LOST" in sure.text


async def test_disorder_and_phantoms_are_faults(settings: Settings) -> None:
    ledger, ids = Ledger("redis"), [uuid4() for _ in range(3)]
    for each in ids:
        ledger.enter("user", each)
    ledger.withdraw("user", ids[2])
    for each in reversed(ids):
        ledger.see("user", each)
    finding = await check(settings, ledger, unsure=(), in_full=True)
    assert "1 OUT OF ORDER" in finding.text
    assert "1 THOUGH ROLLED BACK" in finding.text
    assert not finding.well


async def test_a_database_that_is_away_is_told() -> None:
    away = Settings.model_validate({"database_url": "postgresql://user:secret@127.0.0.1:1/none"})
    ledger = Ledger("kafka")
    ledger.enter("key", uuid4())
    finding = await check(away, ledger, unsure=(), in_full=True)
    assert "Cannot reach the database" in finding.text
    assert "secret" not in finding.text
    assert not finding.well
