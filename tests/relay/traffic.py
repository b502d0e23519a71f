"""What tests of the relay write for the gated sink, and what must be true of what arrived."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg

from outbox import operate
from outbox.operate import Selection
from outbox.settings import Settings, load
from outbox.testing import Attempt, Gate
from tests.support.kafka import Topics
from tests.support.waiting import PATIENCE, until

SINK = "gated"
TOPIC = "slots"

QUICK = {
    "OUTBOX_LEASE_SECONDS": "2",
    "OUTBOX_HEARTBEAT_SECONDS": "0.2",
    "OUTBOX_SEND_TIMEOUT_SECONDS": "1",
    "OUTBOX_POLL_INTERVAL_SECONDS": "0.02",
    "OUTBOX_ERROR_RETRY_INTERVAL_SECONDS": "0.05",
    "OUTBOX_BREAKER_LONGEST_SECONDS": "0.1",
}
"""A relay that is quick in everything, so that a test need not wait for it."""

_WRITE = """
    INSERT INTO outbox (message_id, type, sink, destination, key, payload, available_at, expires_at)
    SELECT gen_random_uuid(), 't.happened', $1, $2, key, $4,
           clock_timestamp() + $5 * interval '1 second', clock_timestamp() + $6 * interval '1 second'
    FROM unnest($3::text[]) WITH ORDINALITY AS given (key, position) ORDER BY position
    RETURNING id
"""


async def write(
    connection: asyncpg.Connection,
    keys: Iterable[str | None],
    *,
    sink: str = SINK,
    destination: str = TOPIC,
    **more: Any,
) -> list[int]:
    """One delivery for each key, in this order, by one statement; returns their ids.

    There may be `payload`, and `available_in` and `expires_in` in seconds from now.
    """
    more = {"payload": b"{}", "available_in": None, "expires_in": None} | more
    records = await connection.fetch(_WRITE, sink, destination, list(keys), *more.values())
    return [record["id"] for record in records]


def settings_of(environment: Mapping[str, str]) -> Settings:
    return load(environment, Path("/nonexistent/.env"))


async def emptied(connection: asyncpg.Connection, *, deadline: float = PATIENCE, but: int = 0) -> None:
    """Return once the queue holds no more than so many deliveries."""

    async def is_empty() -> bool:
        left: int = await connection.fetchval("SELECT count(*) FROM outbox_queue")
        return left <= but

    await until(is_empty, deadline=deadline)


async def arrived(gate: Gate, count: int, *, deadline: float = PATIENCE) -> None:
    """Return once at least so many deliveries arrived, what arrived twice counted twice."""

    async def have() -> bool:
        return len(gate.arrived) >= count

    await until(have, deadline=deadline)


def first_sends(attempts: Iterable[Attempt]) -> dict[tuple[str, str], list[int]]:
    """What arrived of each destination and key, each id where it arrived first."""
    found: dict[tuple[str, str], dict[int, None]] = defaultdict(dict)
    for attempt in attempts:
        if attempt.arrived and attempt.key is not None:
            found[attempt.destination, attempt.key].setdefault(attempt.id)
    return {key: list(ids) for key, ids in found.items()}


def inversions(attempts: Iterable[Attempt]) -> list[tuple[int, int]]:
    """Pairs of ids of one key of which the higher arrived first before the lower did."""
    return [
        (before, after)
        for ids in first_sends(attempts).values()
        for before, after in pairwise(ids)
        if before > after
    ]


def unexplained(attempts: Sequence[Attempt], crashed: Collection[int]) -> list[Attempt]:
    """What arrived and was sent again all the same, though no crash and no uncertain answer says why."""
    last = {attempt.id: place for place, attempt in enumerate(attempts) if attempt.arrived}
    return [
        attempt
        for place, attempt in enumerate(attempts)
        if attempt.arrived
        and place != last[attempt.id]
        and attempt.answer == "sent"
        and attempt.pid not in crashed
    ]


async def lane_of(connection: asyncpg.Connection, id_: int) -> int:
    lane: int = await connection.fetchval("SELECT lane FROM outbox WHERE id = $1", id_)
    return lane


async def state(connection: asyncpg.Connection, id_: int) -> Any:
    """Its row of the view `outbox_state`."""
    return await connection.fetchrow("SELECT * FROM outbox_state WHERE id = $1", id_)


async def assert_all_in_order(connection: asyncpg.Connection, sink: str, told: list[str]) -> None:
    """What a consumer heard, message by message: all that was written, and each key in its order."""
    written = {
        str(row["message_id"]): row
        for row in await connection.fetch("SELECT * FROM outbox WHERE sink = $1 ORDER BY id", sink)
    }
    assert set(told) == written.keys()
    arrivals = [
        Attempt(row["id"], message_id, row["destination"], row["key"], arrived=True, answer="sent", pid=0)
        for message_id in told
        for row in [written[message_id]]
    ]
    assert inversions(arrivals) == []


async def heard(connection: asyncpg.Connection, topics: Topics, topic: str) -> list[int]:
    """The ids of what is in a topic of one partition, in its order, what is there twice once."""
    ids = {str(row["message_id"]): row["id"] for row in await connection.fetch("SELECT * FROM outbox")}
    told = [record.headers["message_id"].decode() for record in await topics.read(topic)]
    return [ids[message_id] for message_id in dict.fromkeys(told)]


async def skip(environment: Mapping[str, str], *ids: int) -> None:
    """Give deliveries up, as an operator does."""
    async with operate.connect(settings_of(environment)) as operator:
        await operate.skip(operator, Selection(ids=ids))


async def retry(environment: Mapping[str, str], *ids: int) -> None:
    """Try deliveries again, as an operator does."""
    async with operate.connect(settings_of(environment)) as operator:
        await operate.retry(operator, Selection(ids=ids))
