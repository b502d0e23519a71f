"""Rows that nobody would write, over all that the table takes, among good ones, to real servers.

Each ends as what it is, and every good one arrives in its order.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from outbox import operate
from outbox.operate import Selection
from outbox.schema import DESTINATION_BYTES, KEY_BYTES, TYPE_BYTES
from tests.relay.traffic import QUICK, assert_all_in_order, settings_of
from tests.support import sql
from tests.support.kafka import Topics
from tests.support.relay_process import RelayProcess
from tests.support.waiting import until

pytestmark = pytest.mark.slow

ROWS = 1_000
CHANNEL = "ws:teacher"
KEYS = [f"good-{number}" for number in range(10)]

_INSERT = """
    INSERT INTO outbox (
        message_id, type, sink, destination, key, payload, headers,
        created_at, available_at, expires_at, replay_id
    )
    VALUES (
        $1, $2, $3, $4, $5, coalesce($6, convert_to(repeat('x', $7), 'UTF8')), $8,
        coalesce($9::text::timestamptz, now()), $10::text::timestamptz, $11::text::timestamptz, $12
    )
    RETURNING id
"""

# Of those that a sink is for: a topic that nobody made yet is waited for.
_SERVED = """
    SELECT id, state FROM outbox_state WHERE sink IN ('kafka', 'redis')
    AND (sink <> 'kafka' OR destination = $1 OR destination !~ '^[a-zA-Z0-9._-]{1,249}$')
"""

Told = Callable[[], Awaitable[dict[str, list[str]]]]

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
# To the microsecond where the table's range ends, and far beyond it.
WITHIN = ["0001-01-02 00:00Z", "0044-03-15", "epoch", "9999-12-29 23:59:59.999999Z"]
BEYOND = [
    *("-infinity", "infinity", "4713-01-01 BC", "0044-03-15 BC", "0001-01-01", "20000-01-01", "294276-12-31"),
    "9999-12-31 23:59:59-05",
]
NAMES = (
    st.sampled_from(["ce_id", "content-type", "message_id", "event_type", "replay_id", "occurred_at"]) | TEXTS
)


def row(topic: str, *, refused: bool) -> st.SearchStrategy[tuple[Any, ...]]:
    """The parameters of one INSERT; `refused` ones too, which the table does not take as it is."""
    headers = st.dictionaries(NAMES, TEXTS, max_size=5)
    times = st.sampled_from(WITHIN + BEYOND * refused) | st.datetimes().map(
        lambda time: f"{time.isoformat()}Z"
    )

    def text(longest: int) -> st.SearchStrategy[str]:
        lengths = [1, longest, *([longest + 1, 3_000] if refused else [])]
        some = TEXTS if refused else TEXTS.filter(bool)
        return some | st.sampled_from(lengths).map("y".__mul__)

    return st.tuples(
        st.uuids(),
        text(TYPE_BYTES),
        st.sampled_from(["kafka", "redis"] * 4 + ["nobodys"]) | (TEXTS if refused else st.nothing()),
        st.sampled_from([topic, CHANNEL] * 4) | text(DESTINATION_BYTES),
        st.none() | st.sampled_from(KEYS) | text(KEY_BYTES),
        st.none() | st.binary(max_size=500),
        st.sampled_from([None] * 20 + [1_500_000, 9_000_000, *([100_000_001] if refused else [])]),
        (headers | JSON if refused else headers).map(json.dumps),
        st.none() | times,
        *(st.none() | st.none() | times,) * 2,
        st.none() | st.uuids(),
    )


def drawn(rows: st.SearchStrategy[tuple[Any, ...]], count: int) -> list[tuple[Any, ...]]:
    """So many, the same in each run."""
    found: list[tuple[Any, ...]] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(rows)
    def draw(values: tuple[Any, ...]) -> None:
        found.append(values)

    draw()
    return found


async def written_among_good_ones(
    db: asyncpg.Connection, rows: list[tuple[Any, ...]], destinations: dict[str, str]
) -> tuple[list[int], list[int]]:
    """Writes what the table takes; returns the ids of the hostile and of the good ones."""
    hostile: list[int] = []
    good: list[int] = []
    for number, values in enumerate(rows):
        try:
            hostile.append(await db.fetchval(_INSERT, *values))
        except (
            asyncpg.IntegrityConstraintViolationError,
            asyncpg.DataError,
            asyncpg.ProgramLimitExceededError,
        ):
            continue
        for sink, destination in destinations.items():
            key = KEYS[number % len(KEYS)]
            times = (None, None, None)
            plain = (uuid4(), "good", sink, destination, key, b"{}", None, "{}", *times, None)
            good.append(await db.fetchval(_INSERT, *plain))
        if len(hostile) == ROWS:
            break
    return hostile, good


@pytest.fixture
async def destinations(kafka: Topics) -> dict[str, str]:
    """Where the good ones go, by sink."""
    return {"kafka": await kafka.create(), "redis": CHANNEL}


@pytest.fixture
def environment(database: str, kafka: Topics, redis_url: str) -> dict[str, str]:
    return {
        **QUICK,
        "OUTBOX_LEASE_SECONDS": "20",
        "OUTBOX_SEND_TIMEOUT_SECONDS": "10",
        "OUTBOX_MAX_RETRIES": "2",
        "OUTBOX_DATABASE_URL": database,
        "OUTBOX_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "OUTBOX_KAFKA_CLOUDEVENTS": "true",
        "OUTBOX_REDIS_URL": redis_url,
        "OUTBOX_REDIS_STREAM": "true",
        "OUTBOX_REDIS_STREAM_MAX_LENGTH": "1000000",
        "OUTBOX_LOG_LEVEL": "info",
    }


@pytest.fixture
def told(kafka: Topics, redis: Redis, destinations: dict[str, str]) -> Told:
    """By sink, the ids of the messages that arrived where the good ones go, in their order."""

    async def read() -> dict[str, list[str]]:
        records = await kafka.read(destinations["kafka"])
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrange(f"{CHANNEL}:log"))
        return {
            "kafka": [record.headers["message_id"].decode() for record in records],
            "redis": [fields[b"message_id"].decode() for _, fields in entries],
        }

    return read


async def drop_checks(db: asyncpg.Connection) -> None:
    checks = "SELECT conname FROM pg_constraint WHERE conrelid = 'outbox'::regclass AND contype = 'c'"
    for (name,) in await db.fetch(checks):
        await db.execute(f'ALTER TABLE outbox DROP CONSTRAINT "{name}"')


@pytest.mark.parametrize("checks", ["as they are", "dropped"])
async def test_each_hostile_row_ends_as_what_it_is_and_every_good_one_arrives_in_order(
    environment: dict[str, str],
    destinations: dict[str, str],
    told: Told,
    relay_process: Callable[..., Awaitable[RelayProcess]],
    checks: str,
) -> None:
    async with sql.connection(environment["OUTBOX_DATABASE_URL"]) as db:
        if checks == "dropped":
            await drop_checks(db)
        rows = drawn(row(destinations["kafka"], refused=checks == "dropped"), 4 * ROWS)
        hostile, good = await written_among_good_ones(db, rows, destinations)
        assert len(hostile) == ROWS
        relay = await relay_process(environment)

        async def is_over() -> bool:
            return not await db.fetchval(
                f"SELECT EXISTS ({_SERVED} AND state IN ('ready', 'held', 'retrying'))", destinations["kafka"]
            )

        await until(is_over, deadline=120)
        states = dict(await db.fetch(_SERVED, destinations["kafka"]))
        assert {states[id_] for id_ in good} == {"delivered"}
        assert set(states.values()) <= {"delivered", "parked", "expired", "scheduled"}
        async with operate.connect(settings_of(environment)) as operator:
            await operate.status(operator)
            await operate.page(operator, Selection(), limit=ROWS)
            await operate.show(operator, Selection(ids=hostile))
        await db.execute("DELETE FROM outbox WHERE NOT id = ANY ($1)", good)
        wanted = {str(id_) for (id_,) in await db.fetch("SELECT message_id FROM outbox")}
        for sink, arrived in (await told()).items():
            await assert_all_in_order(db, sink, [id_ for id_ in arrived if id_ in wanted])
    relay.terminate()
    assert await relay.exited() == 0
