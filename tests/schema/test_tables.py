from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from outbox.schema import LANES, TABLES
from outbox.schema.catalog import catalog
from tests.support import sql

HOUR = timedelta(hours=1)


@pytest.fixture
async def db(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as made:
        yield made


async def written(db: asyncpg.Connection, **values: Any) -> int:
    """The id of a new row."""
    row = {"message_id": uuid4(), "type": "t", "sink": "kafka", "destination": "d", "payload": b"x"} | values
    found: int = await db.fetchval(
        f"INSERT INTO outbox ({', '.join(row)}) VALUES ({', '.join(f'${n}' for n in range(1, len(row) + 1))})"
        " RETURNING id",
        *row.values(),
    )
    return found


async def queued(db: asyncpg.Connection, id_: int, **values: Any) -> None:
    """Change what the queue says of a row."""
    changes = ", ".join(f"{name} = ${n}" for n, name in enumerate(values, 2))
    await db.execute(f"UPDATE outbox_queue SET {changes} WHERE id = $1", id_, *values.values())


async def settled(db: asyncpg.Connection, id_: int, outcome: str) -> None:
    await db.execute("DELETE FROM outbox_queue WHERE id = $1", id_)
    await db.execute("INSERT INTO outbox_receipts (id, outcome, attempts) VALUES ($1, $2, 0)", id_, outcome)


async def state(db: asyncpg.Connection, id_: int) -> tuple[str, bool, bool]:
    """What the view says: state, stuck, pending."""
    return tuple(await db.fetchrow("SELECT state, stuck, pending FROM outbox_state WHERE id = $1", id_))


# The row


async def test_a_row_without_a_key_has_a_hash_of_its_own(db: asyncpg.Connection) -> None:
    hashes = "SELECT count(DISTINCT key_hash), count(*) FROM outbox WHERE key IS NOT DISTINCT FROM $1"
    for key in (None, "k"):
        for _ in range(50):
            await written(db, key=key)
    assert tuple(await db.fetchrow(hashes, None)) == (50, 50)
    assert tuple(await db.fetchrow(hashes, "k")) == (1, 50)


async def test_keys_spread_over_all_lanes(db: asyncpg.Connection) -> None:
    await db.execute(
        "INSERT INTO outbox (message_id, type, sink, destination, key)"
        " SELECT gen_random_uuid(), 't', 'kafka', 'd', n::text FROM generate_series(1, 6400) n"
    )
    rows = await db.fetch("SELECT lane, count(*) FROM outbox GROUP BY lane ORDER BY lane")
    assert [lane for lane, _ in rows] == list(range(LANES))
    assert all(50 < count < 150 for _, count in rows)
    assert await db.fetchval("SELECT bool_and(lane = (key_hash & 63)) FROM outbox")


async def test_the_hash_never_changes(db: asyncpg.Connection) -> None:
    id_ = await written(db, destination="huleedu.els.essay.slot.assigned.v1", key="batch-1")
    row = await db.fetchrow("SELECT key_hash, lane FROM outbox WHERE id = $1", id_)
    assert tuple(row) == (-8444003445207715938, 30)


async def test_the_queue_has_what_the_row_has(db: asyncpg.Connection) -> None:
    id_ = await written(db, key="ké", payload=b"12345")
    row = await db.fetchrow(
        "SELECT q.*, o.sink = q.sink AND o.lane = q.lane AND o.key_hash = q.key_hash AS alike,"
        " hashtextextended(o.destination, 0) AS hash, o.created_at"
        " FROM outbox_queue q JOIN outbox o USING (id) WHERE id = $1",
        id_,
    )
    assert row["alike"]
    assert row["destination_hash"] == row["hash"]
    assert 5 + 3 <= row["bytes"] <= 5 + 3 + 16
    assert row["first_due_at"] == row["created_at"]
    assert (row["due_at"], row["attempts"], row["blocks"], row["parked_at"]) == (None, 0, False, None)


async def test_the_queue_has_the_size_as_sent(db: asyncpg.Connection) -> None:
    headers = {"long": "x" * 50_000}  # stored in a hundredth of that
    await written(db, payload=bytes(1_000_000), headers=json.dumps(headers))
    size = await db.fetchval("SELECT bytes FROM outbox_queue")
    assert size == 1_000_000 + len(json.dumps(headers))


async def test_nothing_is_due_before_it_was_written(db: asyncpg.Connection) -> None:
    id_ = await written(db, available_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert await state(db, id_) == ("ready", False, True)
    assert await db.fetchval("SELECT due_at FROM outbox_queue") is None


async def test_a_writer_cannot_choose_an_id(db: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await written(db, id=7)


async def test_an_id_that_no_walk_would_find_is_refused(db: asyncpg.Connection) -> None:
    for id_ in (0, -1):
        with pytest.raises(asyncpg.CheckViolationError, match='"outbox_id_positive"'):
            await db.execute(
                "INSERT INTO outbox (id, message_id, type, sink, destination) OVERRIDING SYSTEM VALUE"
                " VALUES ($1, gen_random_uuid(), 't', 'kafka', 'd')",
                id_,
            )


async def test_a_replay_is_another_row_and_itself_written_once(db: asyncpg.Connection) -> None:
    message_id, replay = uuid4(), uuid4()
    await written(db, message_id=message_id)
    await written(db, message_id=message_id, replay_id=replay)
    for again in ({}, {"replay_id": replay}):
        with pytest.raises(asyncpg.UniqueViolationError):
            await written(db, message_id=message_id, **again)


IMPOSSIBLE = {
    "outbox_type_length": {"type": ""},
    "outbox_sink_name": {"sink": "Kafka"},
    "outbox_destination_length": {"destination": ""},
    "outbox_key_length": {"key": "é" * 513},
    "outbox_headers_strings": {"headers": "[]"},
    "outbox_headers_length": {"headers": json.dumps({"x": "é" * 50_000})},
    "outbox_header_names": {"headers": '{"": "x"}'},
    "outbox_payload_length": {"payload": bytes(100_000_001)},
    "outbox_expires_after_available": {
        "available_at": datetime(2025, 1, 1, tzinfo=UTC),
        "expires_at": datetime(2025, 1, 1, tzinfo=UTC),
    },
}


@pytest.mark.parametrize(("check", "values"), IMPOSSIBLE.items(), ids=IMPOSSIBLE.keys())
async def test_what_cannot_be_is_refused(db: asyncpg.Connection, check: str, values: dict[str, Any]) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=f'"{check}"'):
        await written(db, **values)


@pytest.mark.parametrize("column", ["created_at", "available_at", "expires_at"])
@pytest.mark.parametrize(
    "time", ["-infinity", "infinity", "4713-01-01 BC", "0001-01-01 23:59Z", "9999-12-31Z", "294276-12-31"]
)
async def test_a_time_that_python_has_not_is_refused(db: asyncpg.Connection, column: str, time: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=f'"outbox_{column.removesuffix("_at")}_range"'):
        await db.execute(
            f"INSERT INTO outbox (message_id, type, sink, destination, {column})"
            f" VALUES (gen_random_uuid(), 't', 'kafka', 'd', '{time}')"
        )


async def test_first_due_is_a_time_that_python_has_whatever_was_written(db: asyncpg.Connection) -> None:
    for column in ("created", "available"):
        await db.execute(f"ALTER TABLE outbox DROP CONSTRAINT outbox_{column}_range")
    for time in ("-infinity", "infinity"):
        await db.execute(
            "INSERT INTO outbox (message_id, type, sink, destination, created_at, available_at)"
            f" VALUES (gen_random_uuid(), 't', 'kafka', 'd', '{time}', '{time}')"
        )
    first, last = [due for (due,) in await db.fetch("SELECT first_due_at FROM outbox_queue ORDER BY id")]
    assert (first.year, last.year) == (1, 9999)


async def test_a_key_that_is_the_id_of_a_row_without_one_holds_it_not(db: asyncpg.Connection) -> None:
    without = await written(db, key=None)
    alike = await written(db, key=str(without))
    hashes = "SELECT count(DISTINCT (lane, key_hash)) FROM "
    assert await db.fetchval(f"{hashes} outbox") == 1
    assert await db.fetchval(f"{hashes} outbox_queue") == 2
    for head, other in ((without, alike), (alike, without)):
        await queued(db, head, parked_at=datetime.now(UTC), last_error="x", blocks=True)
        assert (await state(db, other))[0] == "ready"
        await queued(db, head, parked_at=None, blocks=False)


@pytest.mark.parametrize("value", [1, None, True, ["x"], {"a": "b"}, {}, []], ids=repr)
async def test_headers_are_strings(db: asyncpg.Connection, value: Any) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="outbox_headers_strings"):
        await written(db, headers=json.dumps({"fine": "x", "wrong": value}))


@pytest.mark.parametrize(
    ("check", "values"),
    [
        ("attempts_positive", {"attempts": -1}),
        (
            "parked_is_not_due",
            {"parked_at": datetime.now(UTC), "due_at": datetime.now(UTC), "last_error": "x"},
        ),
        ("parked_has_reason", {"parked_at": datetime.now(UTC)}),
        ("blocks_while_waiting", {"blocks": True}),
    ],
)
async def test_a_queue_row_is_in_one_state(
    db: asyncpg.Connection, check: str, values: dict[str, Any]
) -> None:
    id_ = await written(db)
    with pytest.raises(asyncpg.CheckViolationError, match=f'"outbox_queue_{check}"'):
        await queued(db, id_, **values)


# The view


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "ready"),
        ({"due_at": datetime.now(UTC) + HOUR}, "scheduled"),
        ({"due_at": datetime.now(UTC) - HOUR}, "ready"),
        ({"due_at": datetime.now(UTC) + HOUR, "last_error": "x", "attempts": 1, "blocks": True}, "retrying"),
        ({"due_at": datetime.now(UTC) - HOUR, "last_error": "x", "attempts": 1, "blocks": True}, "retrying"),
        ({"parked_at": datetime.now(UTC), "last_error": "x"}, "parked"),
        ({"parked_at": datetime.now(UTC), "last_error": "x", "blocks": True}, "parked"),
    ],
)
async def test_the_state_of_what_is_to_do(
    db: asyncpg.Connection, values: dict[str, Any], expected: str
) -> None:
    id_ = await written(db, key="k")
    if values:
        await queued(db, id_, **values)
    assert await state(db, id_) == (expected, False, True)


async def test_a_scheduled_delivery_is_scheduled_from_the_start(db: asyncpg.Connection) -> None:
    id_ = await written(db, available_at=datetime.now(UTC) + HOUR)
    assert await state(db, id_) == ("scheduled", False, True)


async def test_a_blocking_delivery_holds_the_later_ones_of_its_key(db: asyncpg.Connection) -> None:
    before, head, after, scheduled = [await written(db, key="k") for _ in range(4)]
    others = [
        await written(db, key="other"),
        await written(db, key="k", destination="other"),
        await written(db, key="k", sink="redis"),
        await written(db, key=None),
    ]
    await queued(db, scheduled, due_at=datetime.now(UTC) + HOUR)
    await queued(db, head, parked_at=datetime.now(UTC), last_error="x", blocks=True)
    assert (await state(db, after))[0] == "held"
    assert (await state(db, before))[0] == "ready"
    assert (await state(db, scheduled))[0] == "scheduled"
    assert {(await state(db, id_))[0] for id_ in others} == {"ready"}
    await queued(db, head, blocks=False)
    assert (await state(db, after))[0] == "ready"


@pytest.mark.parametrize("outcome", ["delivered", "expired", "skipped"])
async def test_the_state_of_what_is_done(db: asyncpg.Connection, outcome: str) -> None:
    id_ = await written(db, headers='{"correlation_id": "c"}')
    await settled(db, id_, outcome)
    assert await state(db, id_) == (outcome, False, False)
    row = await db.fetchrow("SELECT * FROM outbox_state WHERE state = $1", outcome)
    assert (row["id"], row["correlation_id"]) == (id_, "c")
    assert row["settled_at"] >= row["first_due_at"]


async def test_an_unknown_outcome_is_refused(db: asyncpg.Connection) -> None:
    id_ = await written(db)
    with pytest.raises(asyncpg.CheckViolationError, match="outbox_receipts_outcome_known"):
        await settled(db, id_, "lost")


@pytest.mark.parametrize(
    ("values", "stuck"),
    [
        ({}, True),
        ({"due_at": datetime.now(UTC) + HOUR, "last_error": "x", "attempts": 3}, True),
        ({"parked_at": datetime.now(UTC), "last_error": "x"}, False),
    ],
    ids=["ready", "retrying", "parked"],
)
async def test_stuck_is_what_should_long_be_out(
    db: asyncpg.Connection, values: dict[str, Any], *, stuck: bool
) -> None:
    id_ = await written(db)
    for age, expected in ((timedelta(minutes=4), False), (timedelta(minutes=6), stuck)):
        await queued(db, id_, first_due_at=datetime.now(UTC) - age, **values)
        assert (await state(db, id_))[1] is expected


async def test_a_relay_tells_from_when_on_its_sink_is_stuck(db: asyncpg.Connection) -> None:
    id_, other = await written(db), await written(db, sink="redis")
    await db.execute("UPDATE outbox_queue SET first_due_at = now() - interval '10 minutes'")
    await db.execute(
        "INSERT INTO outbox_sinks (sink, stuck_after, on_park) VALUES ('kafka', '1 hour', 'continue')"
    )
    assert [(await state(db, found))[1] for found in (id_, other)] == [False, True]


# Plans


async def tables_read(db: asyncpg.Connection, statement: str) -> dict[str, str]:
    """Table → how the plan reads it."""
    plan = json.loads(await db.fetchval(f"EXPLAIN (FORMAT JSON) {statement}"))[0]["Plan"]
    found: dict[str, str] = {}

    def walk(node: dict[str, Any]) -> None:
        if "Relation Name" in node:
            found[node["Relation Name"]] = node["Node Type"]
        for child in node.get("Plans", ()):
            walk(child)

    walk(plan)
    return found


@pytest.fixture
async def busy(db: asyncpg.Connection) -> asyncpg.Connection:
    await db.execute("""
        INSERT INTO outbox (message_id, type, sink, destination, key)
        SELECT gen_random_uuid(), 't', 'kafka', 'd', n::text FROM generate_series(1, 20000) n;
        WITH done AS (DELETE FROM outbox_queue WHERE id <= 10000 RETURNING id)
        INSERT INTO outbox_receipts (id, outcome, attempts) SELECT id, 'delivered', 0 FROM done;
        ANALYZE;
    """)
    return db


@pytest.mark.parametrize(
    "condition",
    [
        "stuck",
        "pending",
        "parked_at IS NOT NULL",
        *(f"state = '{name}'" for name in ("scheduled", "ready", "held", "retrying", "parked")),
        "state IN ('held', 'parked')",
        "stuck OR state = 'parked'",
    ],
)
async def test_what_is_pending_reads_no_receipts(busy: asyncpg.Connection, condition: str) -> None:
    read = await tables_read(busy, f"SELECT * FROM outbox_state WHERE {condition}")
    assert "outbox_receipts" not in read
    assert "outbox_queue" in read


@pytest.mark.parametrize("condition", ["id = 15000", f"message_id = '{UUID(int=0)}'", "id IN (1, 15000)"])
async def test_one_delivery_is_found_by_indexes(busy: asyncpg.Connection, condition: str) -> None:
    read = await tables_read(busy, f"SELECT * FROM outbox_state WHERE {condition}")
    assert {table for table, how in read.items() if how == "Seq Scan"} <= {"outbox_sinks"}
    assert {"outbox", "outbox_queue", "outbox_receipts"} <= set(read)


# What people read in psql


async def test_everything_says_what_it_is(db: asyncpg.Connection) -> None:
    found = await catalog(db)
    described = ("table ", "column ", "view ", "function ")
    silent = [name for name, what in found.items() if name.startswith(described) and " -- " not in what]
    assert silent == []
    assert {name.split()[1] for name in found if name.startswith("table ")} == set(TABLES)


async def test_tables_that_churn_are_vacuumed_by_what_died(db: asyncpg.Connection) -> None:
    found = await catalog(db)
    for table in set(TABLES) - {"outbox_sinks", "outbox_pauses", "outbox_operations", "outbox_acts"}:
        assert "autovacuum_vacuum_scale_factor=0" in found[f"table {table}"], table
