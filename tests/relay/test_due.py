"""Many that are due and cannot go out: no fetch reads them all, and what is behind them goes out."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import pytest

from outbox.relay.lane import Lane
from outbox.relay.lines import Lines
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand
from tests.relay.test_walks import keys_of_one_lane
from tests.relay.traffic import TOPIC, inversions, skip, write
from tests.support.waiting import until

OPTIONS = {"OUTBOX_BATCH_SIZE": "100", "OUTBOX_BREAKER_LONGEST_SECONDS": "1h"}


@pytest.mark.parametrize("reminders_are", ["down", "held", "above the floor"])
async def test_reminders_that_are_due_and_cannot_go_out_are_not_all_read_by_each_fetch(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, reminders_are: str
) -> None:
    is_down = reminders_are == "down"
    async with ByHand.made(environment | OPTIONS) as relay:
        await relay.beat()
        if is_down:
            gate.set(Fault(kind="unavailable", destination="down", scope="destination"))
        else:
            gate.set(Fault(kind="transient", destination="down"))
        key = None if is_down else "k"
        await write(connection, [key], destination="down")
        await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = now() + interval '1 h' WHERE blocks")
        await write(connection, [key] * 50_000, destination="down", available_in=3600)
        if reminders_are != "above the floor":
            for _ in range(60):
                await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE NOT blocks")
        await connection.execute("VACUUM ANALYZE outbox_queue")
        down = ["down"] if is_down else []
        await relay.prepare_fetch(down=down)
        assert (
            await relay.explain_fetch(down=down)
        ).rows_read < 20_000  # Twice what it may look at, and little else.


async def test_a_retry_behind_many_that_are_due_and_held_goes_out_and_then_they_do_in_order(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    """All in one lane, and many times what one walk looks at."""
    async with ByHand.made(environment | OPTIONS) as relay:
        await relay.beat()
        gate.set(Fault(kind="transient"))
        (head,) = await write(connection, ["k"])
        await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = now() + interval '1 h'")
        held = await write(connection, ["k"] * 3_000, available_in=3600)
        for _ in range(60):  # The floor passes them.
            await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE NOT blocks")
        gate.set()
        await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE id = $1", head)

        async def are_sent() -> bool:
            await relay.turn()
            return set(gate.arrived) >= {head, *held}

        await until(are_sent)
        assert [id_ for id_ in gate.arrived if id_ in {head, *held}] == [head, *held]
        assert inversions(gate.attempts) == []


async def _held_and_due(
    relay: ByHand, connection: asyncpg.Connection, gate: Gate, held: int, behind: Sequence[str] = ()
) -> list[int]:
    """Many scheduled ones that are due behind a head that waits, and others behind them: below the floor."""
    await relay.beat()
    gate.set(Fault(kind="transient", key="k"))
    await write(connection, ["k"])
    await relay.turn()
    await connection.execute("UPDATE outbox_queue SET due_at = now() + interval '1 h'")
    await write(connection, ["k"] * held, available_in=3600, payload=bytes(20_000))
    others = await write(connection, behind, available_in=3600)
    for _ in range(30):  # The floor passes them.
        await relay.turn()
    gate.set()
    await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE NOT blocks")
    return others


async def _beside_k(connection: asyncpg.Connection, count: int) -> list[str]:
    """Other keys in the lane of the key `k`."""
    lane = await connection.fetchval("SELECT hashtextextended('k', hashtextextended($1, 0)) & 63", TOPIC)
    return await keys_of_one_lane(connection, TOPIC, lane, count)


async def test_where_a_walk_stopped_weighs_nothing(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    """Else a batch that its bytes cut is taken for whole, and floors pass what nobody looked at."""
    async with ByHand.made(environment | OPTIONS | {"OUTBOX_BATCH_BYTES": "10000"}) as relay:
        await _held_and_due(relay, connection, gate, 600)
        sent = await write(connection, [f"o{number}" for number in range(300)])
        for _ in range(100):
            await relay.turn()
        assert set(sent) <= set(gate.arrived)


async def test_what_is_due_and_cannot_go_out_is_looked_at_once_and_a_later_retry_is_not_behind_it(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    down = Fault(kind="unavailable", destination="down", scope="destination")
    gate.set(down)
    async with ByHand.made(environment | OPTIONS) as relay:
        await relay.beat()
        await write(connection, [None] * 20_000, destination="down")
        await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = now()")
        await connection.execute("VACUUM ANALYZE outbox_queue")
        await relay.prepare_fetch(down=["down"])

        async def has_seen_all() -> bool:
            await relay.turn()
            return (await relay.explain_fetch(down=["down"])).rows_read < 200

        await until(has_seen_all)
        gate.set(down, Fault(kind="transient", key="later"))
        (later,) = await write(connection, ["later"], destination="up")

        async def has_failed() -> bool:
            await relay.turn()
            return bool(await connection.fetchval("SELECT attempts FROM outbox_queue WHERE id = $1", later))

        await until(has_failed)
        gate.set(down)
        await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE id = $1", later)
        await relay.turn()
        assert later in gate.arrived
        assert (await relay.explain_fetch(down=["down"])).rows_read < 200


@pytest.mark.parametrize("due", ["-infinity", "0300-01-01 BC"])
async def test_what_was_due_before_year_one_is_found(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, due: str
) -> None:
    async with ByHand.made(environment | OPTIONS) as relay:
        (behind,) = await _held_and_due(relay, connection, gate, 300, await _beside_k(connection, 1))
        await connection.execute(f"UPDATE outbox_queue SET due_at = '{due}' WHERE NOT blocks")
        for _ in range(100):
            await relay.turn()
        assert behind in gate.arrived


async def test_a_backlog_keeps_nothing_that_is_due_behind_many_held_ones(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    async with ByHand.made(environment | OPTIONS) as relay:
        one, other = await _beside_k(connection, 2)
        (behind,) = await _held_and_due(relay, connection, gate, 1_000, [one])
        backlog = await write(connection, [other] * 20_000)
        for _ in range(100):
            await relay.turn()
        assert behind in gate.arrived
        assert len(gate.arrived) < len(backlog)


async def test_a_walk_goes_on_where_the_last_it_looked_at_went_out(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    """One fewer is held than a walk looks at."""
    async with ByHand.made(environment | OPTIONS | {"OUTBOX_BATCH_SIZE": "6400"}) as relay:
        behind = await _held_and_due(relay, connection, gate, 127, await _beside_k(connection, 300))
        for _ in range(12):
            await relay.turn()
        assert set(behind) <= set(gate.arrived)


async def test_a_breaker_with_nothing_left_ends_beside_many_that_are_due(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    async with ByHand.made(environment | OPTIONS | {"OUTBOX_BREAKER_LONGEST_SECONDS": "0.01"}) as relay:
        await _held_and_due(relay, connection, gate, 1_000)
        gate.set(Fault(kind="unavailable", destination="down", scope="destination"))
        ids = await write(connection, [None], destination="down")
        await relay.turn()
        assert relay.open_breakers == {"down"}
        await skip(environment, *ids)
        for _ in range(100):
            await relay.turn()
        assert not relay.open_breakers


def test_no_line_is_asked_for_nothing() -> None:
    lines = Lines(10)
    lines.separate([f"d{number}" for number in range(16)])
    assert all(walk.most > 0 for walk in lines.walks([Lane(0, 1)], down=(), probes=()))
