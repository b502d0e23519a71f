"""A destination that is down or has a backlog keeps nobody else waiting, and order does not depend on it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import asyncpg
import pytest

from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand, delivered
from tests.relay.traffic import inversions, lane_of, skip, write
from tests.support import sql
from tests.support.waiting import until

SMALL = {"OUTBOX_BATCH_SIZE": "100"}
ENDLESS_BREAKER = {"OUTBOX_BREAKER_LONGEST_SECONDS": "1h"}


async def turns_until_arrived(relay: ByHand, gate: Gate, id_: int, *, most: int) -> int:
    """How many turns it takes."""
    for turns in range(1, most + 1):
        await relay.turn()
        await relay.beat()
        if id_ in gate.arrived:
            return turns
    raise AssertionError(f"{id_} has not arrived after {most} turns; {len(gate.arrived)} others have")


async def test_a_backlog_for_one_destination_keeps_no_other_waiting(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    async with ByHand.made(environment | SMALL) as relay:
        await relay.beat()
        backlog = await write(connection, [f"key-{n % 500}" for n in range(20_000)], destination="busy")
        (early,) = await write(connection, ["a"], destination="other")
        assert await turns_until_arrived(relay, gate, early, most=20) > 1
        assert len(gate.arrived) < len(backlog) / 5
        later = await write(connection, ["a", "b", "c"], destination="other")
        before = len(gate.arrived)
        await relay.turn()
        between = len(gate.arrived)
        await relay.turn()
        # In a round of their own, which is over sooner than one with a part of the backlog.
        assert set(later) in (set(gate.arrived[before:between]), set(gate.arrived[between:]))
        await delivered(relay, connection)
    assert sorted(gate.arrived) == sorted([*backlog, early, *later])
    assert inversions(gate.attempts) == []


async def test_reminders_that_are_all_due_at_once_keep_nothing_else_waiting(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    async with ByHand.made(environment | SMALL) as relay:
        await relay.beat()
        reminders = await write(connection, [None] * 6_000, available_in=3600)
        for _ in range(3):
            await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = now()")
        live = await write(connection, ["a", "b", "c"])
        for _ in range(3):
            await relay.turn()
        assert set(live) <= set(gate.arrived)
        assert len(gate.arrived) < len(reminders) / 10
        await delivered(relay, connection)
    assert sorted(gate.arrived) == sorted(reminders + live)


async def test_a_backlog_for_what_is_down_is_walked_past_once(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    gate.set(Fault(kind="unavailable", destination="down", scope="destination"))
    async with ByHand.made(environment | SMALL | ENDLESS_BREAKER) as relay:
        await relay.beat()
        await write(connection, ["a"], destination="down")
        await relay.turn()
        down = await write(connection, [None] * 50_000, destination="down")
        (live,) = await write(connection, ["a"], destination="up")
        await turns_until_arrived(relay, gate, live, most=10)

        async def have_passed() -> bool:
            await relay.turn()
            return all(relay.lane(number).floor == live for number in relay.owned)

        await until(have_passed)
        await connection.execute("VACUUM ANALYZE outbox_queue")
        await relay.prepare_fetch(down=["down"])
        assert (await relay.explain_fetch(down=["down"])).rows_read < 200
        assert await connection.fetchval("SELECT count(*) FROM outbox_queue") == len(down) + 1


async def test_an_open_transaction_keeps_no_floor_from_what_is_behind_a_backlog(
    environment: dict[str, str], connection: asyncpg.Connection, database: str, gate: Gate
) -> None:
    gate.set(Fault(kind="unavailable", destination="down", scope="destination"))
    async with (
        ByHand.made(environment | SMALL | ENDLESS_BREAKER) as relay,
        sql.connection(database) as writer,
    ):
        await relay.beat()
        await writer.execute("BEGIN")
        await writer.fetchval("SELECT pg_current_xact_id()")
        await write(connection, ["a"], destination="down")
        await relay.turn()
        await write(connection, ["a"] * 20_000, destination="down")
        lane = await connection.fetchval("SELECT max(lane) FROM outbox")
        key = await connection.fetchval(
            "SELECT n::text FROM generate_series(1, 10000) AS n"
            " WHERE hashtextextended(n::text, hashtextextended('up', 0)) & 63 = $1 LIMIT 1",
            lane,
        )
        (live,) = await write(connection, [key], destination="up")
        assert await connection.fetchval("SELECT lane FROM outbox WHERE id = $1", live) == lane
        await turns_until_arrived(relay, gate, live, most=20)


# Breakers end, and are bounded


@pytest.mark.parametrize("scope", ["sink", "destination"])
async def test_a_breaker_ends_when_nothing_is_left_to_send_there(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    gate: Gate,
    scope: Literal["sink", "destination"],
) -> None:
    async with ByHand.made(environment) as relay:
        await relay.beat()
        gate.set(Fault(kind="unavailable", scope=scope))
        (only,) = await write(connection, ["a"], destination="down")
        await relay.turn()
        assert relay.open_breakers == {None if scope == "sink" else "down"}
        await skip(environment, only)

        async def has_ended() -> bool:
            await relay.turn()
            return not relay.open_breakers

        await until(has_ended)


async def test_the_number_of_breakers_is_bounded_and_the_rest_waits_key_by_key(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    gate.set(Fault(kind="unavailable", scope="destination"))
    async with ByHand.made(environment) as relay:
        await relay.beat()
        ids = []
        for number in range(200):
            ids += await write(connection, ["a", "a"], destination=f"missing-{number}")
        for _ in range(3):
            await relay.turn()
        assert len(relay.open_breakers) == 64
        assert await connection.fetchval("SELECT sum(attempts) FROM outbox_queue") == 0
        assert await connection.fetchval("SELECT count(*) FROM outbox_queue WHERE blocks") == 200 - 64
        gate.set()
        await delivered(relay, connection)
    assert sorted(gate.arrived) == ids
    assert inversions(gate.attempts) == []


# What was changed by hand below the floor


async def test_what_was_set_free_by_hand_below_the_floor_is_found(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    first, second = await write(connection, ["a", "a"], available_in=3600)
    (last,) = await write(connection, ["a"])
    for _ in range(4):
        await by_hand.turn()
    assert gate.arrived == [last]
    await connection.execute("UPDATE outbox_queue SET due_at = NULL")
    await by_hand.turn()
    assert gate.arrived == [last]
    await by_hand.look_back()
    await by_hand.turn()
    assert gate.arrived == [last, first, second]


async def test_what_was_set_free_by_hand_is_found_in_a_line_of_its_own_too(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    gate.set(Fault(kind="unavailable", destination="down", scope="destination"))
    async with ByHand.made(environment) as relay:
        await relay.beat()
        (scheduled,) = await write(connection, ["a"], destination="down", available_in=3600)
        await write(connection, ["a"], destination="down")
        await relay.turn()
        gate.set()
        await until(lambda: has_arrived(relay, gate, 1))
        gate.set(Fault(kind="unavailable", destination="down", scope="destination"))
        await write(connection, ["a"], destination="down")
        for _ in range(5):
            await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = NULL WHERE id = $1", scheduled)
        lane = relay.lane(await lane_of(connection, scheduled))
        assert lane.own["down"] > scheduled
        await relay.look_back()
        assert lane.own["down"] < scheduled
        gate.set()
        await delivered(relay, connection)
    assert scheduled in gate.arrived


async def test_what_was_set_free_by_hand_is_found_though_more_comes_to_lie_below_the_floor_all_the_time(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    (free,) = await write(connection, ["a"], available_in=3600)
    step = by_hand.looking_back()

    async def look() -> None:
        """Look on, after something else was scheduled in the same lane and passed by."""
        await write(connection, ["a"], available_in=3600)
        for _ in range(4):
            await by_hand.turn()
        await step()

    for _ in range(3):
        await look()
    await connection.execute("UPDATE outbox_queue SET due_at = NULL WHERE id = $1", free)
    for _ in range(6):
        await look()
    assert gate.arrived == [free]


async def has_arrived(relay: ByHand, gate: Gate, count: int) -> bool:
    """Whether so many have, after another turn."""
    await relay.turn()
    return len(gate.arrived) >= count


# Order, whatever happens

_DESTINATIONS = ("one", "two", "three")


@dataclass
class Chance:
    """Things that happen to a relay moved by hand, in an order that a seed decides."""

    random: Random
    relay: ByHand
    connection: asyncpg.Connection
    slow: asyncpg.Connection
    gate: Gate
    environment: Mapping[str, str]
    written: list[int] = field(default_factory=list)
    given_up: set[int] = field(default_factory=set)

    async def happens(self) -> None:
        steps = (self.write, self.turn, self.write_slowly, self.go_wrong, self.give_up, self.pause)
        (step,) = self.random.choices(steps, (3, 6, 1, 1, 0.2, 1))
        await step()
        await self.relay.beat()

    async def write(self, session: asyncpg.Connection | None = None, *only: str) -> None:
        key = self.random.choice(only or ("a", "b", None))
        rows, destination = self.random.choice((1, 1, 3, 20)), self.random.choice(_DESTINATIONS)
        self.written += await write(session or self.connection, [key] * rows, destination=destination)

    async def turn(self) -> None:
        await self.relay.turn()

    async def write_slowly(self) -> None:
        """By the one writer of these keys, whose rows become visible long after their ids were drawn."""
        if self.slow.is_in_transaction():
            await self.slow.execute("COMMIT")
        else:
            await self.slow.execute("BEGIN")
            await self.write(self.slow, "slow")

    async def go_wrong(self) -> None:
        chance = self.random
        if chance.random() < 0.25:
            self.gate.set()
            return
        fault = Fault(
            kind=chance.choice(("transient", "unavailable", "unavailable")),
            destination=chance.choice((None, *_DESTINATIONS)),
            key=chance.choice((None, "a")),
            probability=chance.choice((0.3, 1.0)),
            arrives=chance.random() < 0.3,
            scope=chance.choice(("sink", "destination", "part")),
        )
        self.gate.set(fault)

    async def give_up(self) -> None:
        for row in await self.connection.fetch("SELECT id FROM outbox_queue WHERE blocks LIMIT 1"):
            await skip(self.environment, row["id"])
            self.given_up.add(row["id"])

    async def pause(self) -> None:
        await asyncio.sleep(self.random.random() / 50)


@pytest.mark.parametrize("seed", range(4))
async def test_order_outlives_whatever_happens_in_whatever_order(
    environment: dict[str, str], connection: asyncpg.Connection, database: str, gate: Gate, seed: int
) -> None:
    patient = {
        "OUTBOX_BATCH_SIZE": "4",
        "OUTBOX_MAX_RETRIES": "1000",
        "OUTBOX_RETRY_LONGEST_INTERVAL_SECONDS": "0.1",
    }
    async with ByHand.made(environment | patient) as relay, sql.connection(database) as slow:
        await relay.beat()
        random = Random(seed)  # noqa: S311 - chance in a test
        chance = Chance(random, relay, connection, slow, gate, environment)
        for _ in range(250):
            await chance.happens()
        if slow.is_in_transaction():
            await slow.execute("COMMIT")
        gate.set()
        await delivered(relay, connection)
    assert set(chance.written) - chance.given_up <= set(gate.arrived) <= set(chance.written)
    assert inversions(gate.attempts) == []
