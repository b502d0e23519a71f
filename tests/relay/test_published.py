"""Relays with different settings on one table do not fight: the last one to start rules, and both say so."""

from __future__ import annotations

import asyncpg
import pytest

from outbox.observe import Watch, watch
from outbox.relay import Relay
from outbox.relay.published import FOLLOW_ROWS
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand, delivered
from tests.relay.traffic import SINK, TOPIC, arrived, emptied, inversions, settings_of, state, write
from tests.support.waiting import until


async def in_force(connection: asyncpg.Connection) -> str:
    found: str = await connection.fetchval("SELECT on_park FROM outbox_sinks WHERE sink = $1", SINK)
    return found


async def restarted(events: Watch, connection: asyncpg.Connection, relays: int) -> None:
    """End every session of relays; return once each has a new one."""
    count = len(events.matching("relay.ready"))
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'outbox%' AND datname = current_database()"
    )
    await events.wait_for("relay.ready", count=count + relays)


async def test_two_relays_with_different_settings_do_not_take_turns(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    gate.set(Fault(kind="permanent", key="bad"))
    quick = {**environment, "OUTBOX_PRUNE_INTERVAL_SECONDS": "0.1"}
    older = {**quick, "OUTBOX_ON_PARK": "continue"}
    newer = {**quick, "OUTBOX_ON_PARK": "hold", "OUTBOX_STUCK_AFTER_SECONDS": "60"}
    with watch() as events:
        async with Relay(settings_of(older)):
            await events.wait_for("relay.ready")
            (parked,) = await write(connection, ["bad"])
            await events.wait_for("delivery.parked")
            assert not (await state(connection, parked))["blocks"]
            async with Relay(settings_of(newer)):
                changed = await events.wait_for("settings.changed", setting="on_park")
                assert (changed.fields["mine"], changed.fields["other"]) == ("hold", "continue")
                overruled = await events.wait_for("settings.overruled", setting="on_park")
                assert (overruled.fields["mine"], overruled.fields["other"]) == ("continue", "hold")
                await events.wait_for("settings.overruled", setting="stuck_after")
                # Each names itself and the other.
                assert changed.fields["relays"] == overruled.fields["relays"] == [changed.fields["relay"]]

                async def is_followed() -> bool:
                    return bool((await state(connection, parked))["blocks"])

                await until(is_followed)
                before = await connection.fetchval("SELECT holds_ended FROM outbox_sinks")
                for _ in range(3):
                    await restarted(events, connection, 2)
                    assert await in_force(connection) == "hold"
                    assert (await state(connection, parked))["blocks"]
                assert await connection.fetchval("SELECT holds_ended FROM outbox_sinks") == before
    assert len(events.matching("settings.changed", setting="on_park")) == 1


@pytest.mark.parametrize(("mine", "rules"), [("hold", "continue"), ("continue", "hold")])
async def test_what_is_parked_holds_by_the_policy_in_force(
    mine: str, rules: str, environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    gate.set(Fault(kind="transient", key="bad"))
    settings = {**environment, "OUTBOX_MAX_RETRIES": "2", "OUTBOX_ERROR_RETRY_INTERVAL_SECONDS": "0.01"}
    async with ByHand.made({**settings, "OUTBOX_ON_PARK": mine}) as relay:
        async with ByHand.made({**settings, "OUTBOX_ON_PARK": rules}):
            assert await in_force(connection) == rules
        await relay.beat()
        first, second = await write(connection, ["bad"] * 2)
        await relay.turn()
        gate.set(Fault(kind="transient", id=first))

        async def is_parked() -> bool:
            await relay.turn()
            return bool((await state(connection, first))["state"] == "parked")

        await until(is_parked)
        assert (await state(connection, first))["blocks"] is (rules == "hold")

        async def went_on() -> bool:
            await relay.turn()
            return second in gate.arrived

        if rules == "continue":
            await until(went_on)
        else:
            await relay.turn()
            assert (await state(connection, second))["state"] == "held"


async def test_what_is_parked_follows_the_policy_in_parts_and_what_waited_for_each_goes(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    async with ByHand.made({**environment, "OUTBOX_ON_PARK": "hold"}) as relay:
        await relay.beat()
        await connection.execute(
            "INSERT INTO outbox (message_id, type, sink, destination, key)"
            " SELECT gen_random_uuid(), 't', $1, $2, n::text FROM generate_series(1, $3::integer) AS n",
            SINK,
            TOPIC,
            2 * FOLLOW_ROWS + 1,
        )
        await connection.execute("UPDATE outbox_queue SET parked_at = now(), blocks = true, last_error = ''")
        followers = await write(connection, ["1", str(FOLLOW_ROWS + 1), str(2 * FOLLOW_ROWS + 1), "1"])
        for _ in range(3):
            await relay.turn()
        assert not gate.arrived
        before = await connection.fetchval("SELECT holds_ended FROM outbox_sinks")
        async with ByHand.made({**environment, "OUTBOX_ON_PARK": "continue"}):
            # Told with the policy, and with each part.
            assert await connection.fetchval("SELECT holds_ended FROM outbox_sinks") == before + 4
        await delivered(relay, connection, but=2 * FOLLOW_ROWS + 1)
        assert sorted(gate.arrived) == followers
        assert inversions(gate.attempts) == []


async def test_a_relay_that_starts_alone_has_its_settings_in_force_and_warns_nobody(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    with watch() as events:
        for policy in ("continue", "hold", "continue"):
            async with Relay(settings_of({**environment, "OUTBOX_ON_PARK": policy})):
                await events.wait_for("relay.ready")
                (id_,) = await write(connection, [policy])
                await emptied(connection)
                assert await in_force(connection) == policy
                await arrived(gate, 1)
                assert id_ in gate.arrived
            events.seen.clear()
    assert not events.matching("settings.overruled")
