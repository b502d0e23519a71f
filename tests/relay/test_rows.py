"""What a row holds costs that row: the good ones beside it go out, in order, and none is charged for it."""

from __future__ import annotations

import asyncpg
import pytest

from outbox import operate
from outbox.operate import Selection
from outbox.testing import Gate
from tests.relay.by_hand import ByHand, delivered
from tests.relay.traffic import SINK, TOPIC, inversions, settings_of, write

HEADERS = "jsonb_build_object('long', string_agg(md5(n::text), ''))"


async def insert(connection: asyncpg.Connection, **columns: str) -> int:
    """A row with these columns, as SQL expressions, and the CHECKs aside; returns its id."""
    for (name,) in await connection.fetch(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'outbox'::regclass AND contype = 'c'"
    ):
        await connection.execute(f'ALTER TABLE outbox DROP CONSTRAINT "{name}"')
    columns = {
        "message_id": "gen_random_uuid()",
        "type": "'t'",
        "sink": f"'{SINK}'",
        "destination": f"'{TOPIC}'",
        "key": "'hostile'",
        "payload": "'x'",
    } | columns
    found: int = await connection.fetchval(
        f"INSERT INTO outbox ({', '.join(columns)}) SELECT {', '.join(columns.values())} RETURNING id"
    )
    return found


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"created_at": "'-infinity'"}, "its created_at is out of range: -infinity"),
        ({"created_at": "'20000-01-01'"}, "its created_at is out of range: 20000-01-01"),
        ({"created_at": "'0044-03-15 BC'"}, "its created_at is out of range: 0044-03-15"),
        (
            {"payload": "convert_to(repeat('x', 100000001), 'UTF8')"},
            "its payload of 100000001 bytes is over 100000000",
        ),
        ({"headers": f"(SELECT {HEADERS} FROM generate_series(1, 4000) AS n)"}, "its headers are too large"),
        ({"headers": "'[]'"}, "its headers are no object"),
        ({"type": "repeat('t', 256)"}, "its type is too long"),
        ({"destination": "repeat('d', 513)"}, "its destination is too long"),
        ({"key": "repeat('k', 1025)"}, "its key is too long"),
    ],
    ids=lambda value: next(iter(value.items()))[0] if isinstance(value, dict) else "",
)
async def test_what_cannot_be_sent_is_parked_before_it_is_read(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    gate: Gate,
    columns: dict[str, str],
    reason: str,
) -> None:
    before = await write(connection, ["hostile", "good", None])
    bad = await insert(connection, **columns)
    after = await write(connection, ["good", None])
    async with ByHand.made({**environment, "OUTBOX_ON_PARK": "hold"}) as relay:
        await delivered(relay, connection, but=1)
    assert sorted(gate.arrived) == before + after
    assert inversions(gate.attempts) == []
    row = await connection.fetchrow(
        "SELECT attempts, blocks, last_error FROM outbox_queue WHERE id = $1 AND parked_at IS NOT NULL", bad
    )
    assert (row["attempts"], row["blocks"]) == (0, True)
    assert row["last_error"].startswith(reason)


@pytest.mark.parametrize("expires_at", ["'20000-01-01'", "'infinity'", "'9999-12-31 23:59:59-05'"])
async def test_what_expires_too_far_off_never_does(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate, expires_at: str
) -> None:
    id_ = await insert(connection, expires_at=expires_at)
    await delivered(by_hand, connection)
    assert gate.arrived == [id_]


@pytest.mark.parametrize("expires_at", ["'0044-03-15 BC'", "'-infinity'"])
async def test_what_expired_before_our_time_is_late(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate, expires_at: str
) -> None:
    id_ = await insert(connection, expires_at=expires_at)
    await delivered(by_hand, connection)
    assert gate.arrived == []
    assert await connection.fetch("SELECT id, outcome FROM outbox_receipts") == [(id_, "expired")]


async def test_a_message_that_is_gone_holds_nobody(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, ["a"] * 50)
    await connection.execute("DELETE FROM outbox WHERE id = $1", ids[20])
    async with ByHand.made({**environment, "OUTBOX_ON_PARK": "hold", "OUTBOX_BATCH_SIZE": "10"}) as relay:
        await delivered(relay, connection, but=1)
    assert gate.arrived == ids[:20] + ids[21:]
    left = await connection.fetchrow("SELECT last_error, blocks FROM outbox_queue")
    assert tuple(left) == ("its row in outbox is gone", False)


@pytest.mark.parametrize("available_at", ["'-infinity'", "'4000-01-01 BC'", "'infinity'", "'294276-12-31'"])
async def test_a_time_that_python_has_not_breaks_neither_relay_nor_operators(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, available_at: str
) -> None:
    odd = await insert(connection, available_at=available_at, expires_at="'infinity'")
    good = await write(connection, ["good"])
    async with operate.connect(settings_of(environment)) as operator:
        await operate.status(operator)
        shown = [each.id for each in (await operate.page(operator, Selection(), limit=10)).deliveries]
        assert shown == [odd, *good]
        assert len(await operate.show(operator, Selection(ids=[odd]))) == 1
    async with ByHand.made(environment) as relay:
        await relay.beat()
        while await relay.turn():
            continue
    assert set(gate.arrived) == {*good, odd} if available_at.startswith(("'-", "'4")) else {*good}
