"""What somebody deletes by hand while a relay is at work stops nothing else, and inverts nothing."""

from __future__ import annotations

from time import monotonic

import asyncpg
import pytest

from outbox import operate
from outbox.observe import watch
from outbox.relay import Relay
from outbox.schema import LANES
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand
from tests.relay.traffic import SINK, arrived, emptied, inversions, settings_of, write
from tests.support.waiting import until
from tests.support.writers import Writers

QUICK_MAINTENANCE = {"OUTBOX_PRUNE_INTERVAL_SECONDS": "0.1"}


@pytest.mark.parametrize("table", ["outbox_lanes", "outbox_relays", "outbox_sinks"])
async def test_what_relays_keep_of_themselves_is_made_anew(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, table: str
) -> None:
    async def is_full() -> bool:
        rows: int = await connection.fetchval(f"SELECT count(*) FROM {table}")
        return rows == (LANES if table == "outbox_lanes" else 1)

    with watch() as events:
        async with Relay(settings_of({**environment, **QUICK_MAINTENANCE})):
            await events.wait_for("lanes.taken")
            ids = await write(connection, ["a"] * 10)
            await arrived(gate, 10)
            await connection.execute(f"TRUNCATE {table}")
            ids += await write(connection, ["a"] * 10)
            await until(is_full)
            ids += await write(connection, ["a"] * 10)
            await emptied(connection)
    assert sorted(set(gate.arrived)) == ids
    assert inversions(gate.attempts) == []
    assert not events.matching("pump.failed")


async def test_a_lane_that_is_made_anew_is_nobodys_before_a_lease_is_over_and_has_an_epoch_that_nobody_had(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    async with ByHand.made(environment) as owner, ByHand.made(environment, lease_seconds=2) as other:
        await owner.beat()
        before = owner.lane(0).epoch
        truncated = monotonic()
        await connection.execute("TRUNCATE outbox_lanes")

        async def is_taken() -> bool:
            await other.beat()
            return other.owned != set()

        await until(is_taken)
        assert monotonic() - truncated > 1.5
        assert min(other.lane(number).epoch for number in other.owned) > before


async def test_one_message_deleted_before_20_000_of_its_key_keeps_nobody_waiting(
    environment: dict[str, str], connection: asyncpg.Connection, database: str, gate: Gate
) -> None:
    gate.set(Fault(kind="hold"))
    ids = await write(connection, ["a"] * 20_000)
    with watch() as events:
        async with Relay(settings_of(environment)):
            async with Writers.at_work(database, {SINK: "slots"}) as writers:
                await events.wait_for("pump.fetched")
                await connection.execute("DELETE FROM outbox WHERE id = $1", ids[5_000])
                gate.set()
                await arrived(gate, len(ids), deadline=45.0)  # The look back comes after a minute.
                await writers.more()
            await emptied(connection, but=1)
        gone = await connection.fetch("SELECT id, parked_at, blocks FROM outbox_queue")
    assert [(row["id"], row["parked_at"] is None, row["blocks"]) for row in gone] == [
        (ids[5_000], False, False)
    ]
    assert set(gate.arrived) >= set(ids) - {ids[5_000]}
    assert inversions(gate.attempts) == []


async def test_an_id_given_by_hand_below_the_floors_goes_out_at_once_after_a_repair(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    await connection.execute("SELECT setval('outbox_id_seq', 1000)")
    async with Relay(settings_of(environment)), operate.connect(settings_of(environment)) as operator:
        ids = await write(connection, ["a"] * 100)
        for _ in range(5):  # Until the floors have followed.
            await emptied(connection)
            ids += await write(connection, ["a"])
        await emptied(connection)
        await connection.execute("UPDATE outbox_receipts SET settled_at = now() - interval '1 minute'")
        await connection.execute(
            "INSERT INTO outbox (id, message_id, type, sink, destination, key) OVERRIDING SYSTEM VALUE"
            " VALUES (500, gen_random_uuid(), 't', $1, 'slots', 'a')",
            SINK,
        )
        assert (await operate.status(operator)).needs_attention
        await operator.rollback()
        assert (await operate.repair(operator)).passed == 1
        await emptied(connection, deadline=45.0)  # The look back comes after a minute.
        assert not (await operate.status(operator)).needs_attention
    assert sorted(gate.arrived) == [500, *ids]
