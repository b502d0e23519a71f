"""What fails is tried again with growing patience, parked when that is of no use, or too late in the end."""

from __future__ import annotations

import asyncpg

from outbox.observe import watch
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand, delivered
from tests.relay.traffic import inversions, state, write
from tests.support.waiting import until

SLOW = {
    "OUTBOX_ERROR_RETRY_INTERVAL_SECONDS": "100",
    "OUTBOX_RETRY_LONGEST_INTERVAL_SECONDS": "1000",
}


async def make_due(connection: asyncpg.Connection) -> None:
    await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE due_at IS NOT NULL")


async def test_a_retrys_wait_is_stored_and_grows_to_its_cap_with_jitter(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    await write(connection, [None] * 50)
    gate.set(Fault(kind="transient"))
    async with ByHand.made({**environment, **SLOW}) as relay:
        await relay.beat()
        for attempts, ceiling in enumerate((100, 200, 400, 800, 1000, 1000), start=1):
            await make_due(connection)
            before = await connection.fetchval("SELECT clock_timestamp()")
            await relay.turn()
            rows = await connection.fetch(
                "SELECT attempts, extract(epoch FROM due_at - $1)::float AS wait, last_error"
                " FROM outbox_queue",
                before,
            )
            assert {row["attempts"] for row in rows} == {attempts}
            assert {row["last_error"] for row in rows} == {"the gate says so"}
            waits = sorted(row["wait"] for row in rows)
            # 50 uniform ones: each of these fails once in more than 10^9 runs.
            assert 0 < waits[0] < 0.4 * ceiling
            assert 0.6 * ceiling < waits[-1] < ceiling + 5
            assert waits[-1] - waits[0] > 0.3 * ceiling


async def test_attempts_used_up_park_with_the_last_reason(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    first, second = await write(connection, ["a"] * 2)
    gate.set(Fault(kind="transient", id=first, reason="no luck"))
    async with ByHand.made({**environment, "OUTBOX_MAX_RETRIES": "3"}) as relay:
        await relay.beat()
        for _ in range(3):
            assert gate.arrived == []
            await make_due(connection)
            await relay.turn()
        parked = await state(connection, first)
        assert (parked["state"], parked["attempts"], parked["last_error"]) == ("parked", 3, "no luck")
        await relay.turn()
    assert gate.arrived == [second]


async def test_a_permanent_error_parks_at_once_and_its_key_goes_on(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    first, *rest = await write(connection, ["a"] * 3)
    gate.set(Fault(kind="permanent", id=first, reason="too large"))
    with watch() as events:
        await by_hand.work()
    parked = await state(connection, first)
    assert (parked["state"], parked["attempts"], parked["last_error"]) == ("parked", 1, "too large")
    assert events.matching("delivery.parked", id=first, reason="too large")
    assert gate.arrived == rest


async def test_a_permanent_error_parks_at_once_and_its_key_waits_under_hold(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, ["a", "b"] * 3)
    gate.set(Fault(kind="permanent", id=ids[0]))
    async with ByHand.made({**environment, "OUTBOX_ON_PARK": "hold"}) as relay:
        await relay.beat()
        await relay.work()
    assert (await state(connection, ids[0]))["state"] == "parked"
    assert [(await state(connection, id_))["state"] for id_ in ids[2::2]] == ["held", "held"]
    assert gate.arrived == ids[1::2]


async def test_a_changed_park_policy_moves_what_is_parked_already(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    head, *followers = await write(connection, ["a"] * 3)
    gate.set(Fault(kind="permanent", id=head))
    async with ByHand.made({**environment, "OUTBOX_ON_PARK": "hold"}) as holding:
        await holding.beat()
        for _ in range(3):
            await holding.turn()
        async with ByHand.made(environment):  # It joins with the policy `continue`.
            newer = await write(connection, ["a"])
            await holding.turn()
    assert gate.arrived == [*followers, *newer]


async def test_an_uncertain_failure_is_parked_once_it_was_sent_again(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    (id_,) = await write(connection, ["a"])
    gate.set(Fault(kind="permanent", arrives=True))
    async with ByHand.made({**environment, "OUTBOX_MAX_RETRIES": "1"}) as relay:
        await relay.beat()
        for attempts, expected in ((1, "retrying"), (2, "parked")):
            await make_due(connection)
            await relay.turn()
            row = await state(connection, id_)
            assert (row["state"], row["attempts"], row["uncertain"]) == (expected, attempts, True)


async def test_attempts_are_counted_as_far_as_there_are_numbers(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    (id_,) = await write(connection, ["a"])
    await connection.execute("UPDATE outbox_queue SET attempts = 32767")
    gate.set(Fault(kind="transient", arrives=True))
    await by_hand.turn()
    row = await state(connection, id_)
    assert (row["state"], row["attempts"]) == ("retrying", 32_767)


async def test_random_failures_keep_every_keys_order(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, [f"key-{n // 5 % 7}" for n in range(400)])
    gate.set(
        Fault(kind="raise", probability=0.002),
        Fault(kind="transient", probability=0.02),
        Fault(kind="transient", probability=0.02, arrives=True),
        Fault(kind="unavailable", probability=0.01),
        Fault(kind="unavailable", probability=0.01, scope="part", arrives=True),
    )
    await delivered(by_hand, connection)
    assert sorted(set(gate.arrived)) == ids
    assert inversions(gate.attempts) == []


# Too late


async def make_late(connection: asyncpg.Connection, id_: int) -> None:
    await connection.execute("UPDATE outbox SET expires_at = now() WHERE id = $1", id_)


async def test_what_is_too_late_is_not_sent_and_holds_nobody(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    late, fresh = await write(connection, ["a"] * 2, expires_in=3600)
    await make_late(connection, late)
    with watch() as events:
        await by_hand.turn()
    assert gate.arrived == [fresh]
    assert (await state(connection, late))["state"] == "expired"
    assert events.matching("delivery.expired", id=late)


async def test_a_retry_is_never_set_past_its_expiry(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, [None] * 20, expires_in=10)
    gate.set(Fault(kind="transient"))
    async with ByHand.made({**environment, **SLOW}) as relay:
        await relay.beat()
        await relay.turn()
        rows = await connection.fetch("SELECT due_at, expires_at FROM outbox_state")
        assert len(rows) == len(ids)
        assert all(row["due_at"] <= row["expires_at"] for row in rows)
        assert any(row["due_at"] == row["expires_at"] for row in rows)


async def test_a_head_that_expires_lets_its_key_go(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    head, follower = await write(connection, ["a"] * 2, expires_in=3600)
    gate.set(Fault(kind="transient", id=head))
    async with ByHand.made({**environment, **SLOW}) as relay:
        await relay.beat()
        for _ in range(3):
            await relay.turn()
        await make_late(connection, head)
        await make_due(connection)
        await relay.turn()
        assert (await state(connection, head))["state"] == "expired"
        await relay.turn()
    assert gate.arrived == [follower]


async def test_what_may_have_arrived_is_sent_again_before_it_expires(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, ["a"] * 2, expires_in=3600)
    gate.set(Fault(kind="unavailable", arrives=True))
    await by_hand.turn()
    assert [(await state(connection, id_))["uncertain"] for id_ in ids] == [True, False]
    for id_ in ids:
        await make_late(connection, id_)
    gate.set()
    await delivered(by_hand, connection)
    assert gate.arrived == [ids[0], ids[0]]
    assert (await state(connection, ids[0]))["state"] == "delivered"
    assert (await state(connection, ids[1]))["state"] == "expired"


async def test_what_is_too_late_and_may_have_arrived_is_not_sent_in_haste(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, [None] * 20, expires_in=3600)
    gate.set(Fault(kind="transient", arrives=True))
    async with ByHand.made({**environment, **SLOW}) as relay:
        await relay.beat()
        await relay.turn()
        for id_ in ids:
            await make_late(connection, id_)
        await make_due(connection)
        await relay.turn()
        waiting = await connection.fetchval("SELECT count(*) FROM outbox_queue WHERE due_at > now()")
    assert waiting == len(ids)


# Later


async def test_a_scheduled_delivery_waits_for_its_time_and_holds_nobody(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    (scheduled,) = await write(connection, ["a"], available_in=3600)
    ids = await write(connection, ["a"] * 2)
    assert (await state(connection, scheduled))["state"] == "scheduled"
    for _ in range(3):
        await by_hand.turn()
    assert gate.arrived == ids
    await make_due(connection)
    await by_hand.turn()
    assert gate.arrived == [*ids, scheduled]


async def test_a_scheduled_delivery_is_sent_when_its_time_has_come(
    by_hand: ByHand, connection: asyncpg.Connection
) -> None:
    await write(connection, ["a"], available_in=0.3)
    await delivered(by_hand, connection)
    assert await connection.fetchval(
        "SELECT bool_and(r.settled_at >= o.available_at) FROM outbox o JOIN outbox_receipts r USING (id)"
        " WHERE o.available_at IS NOT NULL"
    )


async def test_a_scheduled_delivery_that_fails_holds_its_key(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    (scheduled,) = await write(connection, ["a"], available_in=0.01)
    gate.set(Fault(kind="transient", id=scheduled))

    async with ByHand.made({**environment, **SLOW}) as relay:
        await relay.beat()

        async def has_failed() -> bool:
            await relay.turn()
            return bool(gate.attempts)

        await until(has_failed)
        (after,) = await write(connection, ["a"])
        await relay.turn()
    assert gate.arrived == []
    assert (await state(connection, after))["state"] == "held"


async def test_a_delivery_whose_time_comes_takes_its_place_in_the_line(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    before = await write(connection, ["a"] * 5)
    scheduled = await write(connection, ["a"] * 2, available_in=3600)
    after = await write(connection, ["a"] * 5)
    await make_due(connection)
    async with ByHand.made({**environment, "OUTBOX_BATCH_SIZE": "2"}) as relay:
        await relay.beat()
        await relay.work()
    assert gate.arrived == before + scheduled + after
