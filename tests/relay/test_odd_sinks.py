"""A sink may be anybody's: what it does wrong costs its own deliveries, and nothing else."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from outbox.message import Sent
from outbox.observe import watch
from outbox.relay import Relay
from outbox.testing import Gate
from tests.relay.by_hand import ByHand, delivered
from tests.relay.odd_sinks import Astray, Curt, Fierce, Impatient, Late, Silent, Slow, Stubborn, Vague, odd
from tests.relay.traffic import SINK, emptied, settings_of, state, write
from tests.support.clock import Clock
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("sink", "recorded"),
    [
        (Silent, ("the sink gave no results for 1 deliveries", True)),
        (Curt, ("the sink gave 0 results for 1 deliveries", True)),
        (Vague, ("the sink gave 'fine' for a result", True)),
        (Fierce, ("ZeroDivisionError: a?b ?", False)),
        (Impatient, ("TimeoutError", False)),
    ],
)
async def test_an_answer_that_is_none_fails_what_was_sent(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    gate: Gate,
    sink: type,
    recorded: tuple[str, bool],
) -> None:
    (id_,) = await write(connection, ["odd"])
    async with ByHand.made(odd(environment, sink)) as relay:
        await relay.beat()
        await relay.turn()
        row = await state(connection, id_)
        assert (row["state"], row["attempts"]) == ("retrying", 1)
        assert (row["last_error"], row["uncertain"]) == recorded
        others = await write(connection, ["even"] * 2)
        await connection.execute("UPDATE outbox_queue SET due_at = due_at + interval '1 hour' WHERE blocks")
        await relay.turn()
    assert gate.arrived == others


@pytest.mark.parametrize(
    "place",
    [
        Sent(offset="12"),  # type: ignore[arg-type]
        Sent(partition=2**31),
        Sent(offset=2**63),
        Sent(receivers=-(2**40)),
    ],
)
async def test_a_place_that_no_receipt_can_hold_is_no_result_and_keeps_no_others_from_being_recorded(
    environment: dict[str, str], connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, place: Sent
) -> None:
    monkeypatch.setattr(Astray, "place", place)
    ids = await write(connection, ["even", "odd", "level"])
    async with ByHand.made(odd(environment, Astray)) as relay:
        await relay.beat()
        await relay.turn()
    states = [await state(connection, id_) for id_ in ids]
    assert [row["state"] for row in states] == ["delivered", "retrying", "delivered"]
    assert (states[1]["attempts"], states[1]["uncertain"]) == (1, True)
    assert states[1]["last_error"] == f"the sink gave {place!r} for a result"


async def test_an_answer_that_is_always_uncertain_is_parked_as_that(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    (id_,) = await write(connection, ["odd"])
    async with ByHand.made({**odd(environment, Vague), "OUTBOX_MAX_RETRIES": "3"}) as relay:
        await relay.beat()
        for attempts in (1, 2, 3):
            await relay.turn()
            row = await state(connection, id_)
            assert (row["attempts"], row["uncertain"]) == (attempts, True)
            await connection.execute("UPDATE outbox_queue SET due_at = clock_timestamp() WHERE blocks")
    assert row["state"] == "parked"


async def test_a_send_that_hangs_ends_with_the_lease(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    (id_,) = await write(connection, ["odd"])
    async with ByHand.made(odd(environment, Slow), lease_seconds=1.5) as relay:
        await relay.beat()
        turn = asyncio.create_task(relay.turn())
        while not turn.done():
            await relay.beat()
        row = await state(connection, id_)
        assert (row["attempts"], row["uncertain"]) == (0, True)


async def test_where_a_send_takes_all_the_time_and_raises_the_one_at_fault_soon_stands_alone(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(Late, "clock", clock, raising=False)
    monkeypatch.setattr(Late, "asked", 0)
    before = await write(connection, map(str, range(50)))
    (fault,) = await write(connection, ["odd"])
    after = await write(connection, map(str, range(50)))
    async with ByHand.made(odd(environment, Late), clock=clock) as relay:
        await relay.beat()
        assert await relay.turn() == 0
        assert relay.in_vain[0] > 0
        assert relay.in_vain[1] == "TimeoutError: its own"

        async def is_charged() -> bool:
            await relay.beat()
            await relay.turn()
            return bool((await state(connection, fault))["attempts"])

        await until(is_charged)
        assert Late.asked <= 8
        assert gate.arrived == before
        await connection.execute("UPDATE outbox_queue SET due_at = due_at + interval '1 hour' WHERE blocks")
        await delivered(relay, connection, but=1)
        assert gate.arrived == [*before, *after]


async def test_a_sink_that_does_not_start_is_waited_for_and_one_that_does_not_stop_is_left(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.relay.relay._SINK_STOP_SECONDS", 0.1)
    ids = await write(connection, ["a"])
    with watch() as events:
        async with Relay(settings_of(odd(environment, Stubborn))):
            await events.wait_for("relay.waiting", what=SINK, reason="OSError: not today")
            await emptied(connection)
    assert gate.arrived == ids
    assert events.matching("relay.stopped")
