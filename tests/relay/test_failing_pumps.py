"""An error that is none of a connection's costs one pump a pause, and is told; the others go on."""

from __future__ import annotations

import asyncpg
import pytest

from outbox.observe import watch
from outbox.relay import Relay
from outbox.schema.grants import grants
from outbox.testing import Gate
from tests.relay.odd_sinks import Fickle
from tests.relay.traffic import SINK, emptied, settings_of, write
from tests.support import sql
from tests.support.waiting import until

BREAK_SETTLING = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF EXISTS (SELECT FROM outbox WHERE id = NEW.id AND sink = 'gated') THEN
            RAISE 'not this sink';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON outbox_receipts FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.fixture
def both(environment: dict[str, str], gate: Gate) -> dict[str, str]:
    """Two sinks, the gated one and another."""
    other = gate.environment("other")
    sinks = f"{environment['OUTBOX_SINKS']},{other['OUTBOX_SINKS']}"
    return {**environment, **other, "OUTBOX_SINKS": sinks, "OUTBOX_PUMPS": "1"}


async def test_an_sql_error_of_one_sink_leaves_the_others_alone(
    both: dict[str, str], connection: asyncpg.Connection
) -> None:
    await connection.execute(BREAK_SETTLING)
    with watch() as events:
        async with Relay(settings_of(both)) as relay:
            await events.wait_for("relay.ready")
            await write(connection, ["a"])
            await events.wait_for("pump.failed", sink=SINK, reason="RaiseError: not this sink")
            for _ in range(3):
                await write(connection, ["a"] * 10, sink="other")
                await emptied(connection, but=1)
            failing = {sink.sink: sink.failing for sink in relay.health().sinks}
            assert [each.reason for each in failing[SINK]] == ["RaiseError: not this sink"]
            assert failing["other"] == ()
            await connection.execute("DROP TRIGGER refuse ON outbox_receipts")
            await emptied(connection)

            async def works() -> bool:
                return relay.health().sinks[0].failing == ()

            await until(works)
    assert not events.matching("relay.lost_database")


async def test_a_delivery_that_is_queued_again_keeps_its_first_receipt(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write(connection, ["a", "b"])
    resend = """
        INSERT INTO outbox_queue (sink, lane, id, key_hash, destination_hash, bytes, first_due_at)
        SELECT sink, lane, id, key_hash, hashtextextended(destination, 0), 1, now() FROM outbox
    """
    async with Relay(settings_of(environment)):
        await emptied(connection)
    first = await connection.fetch("SELECT * FROM outbox_receipts ORDER BY id")
    await connection.execute(resend)
    async with Relay(settings_of(environment)):
        await emptied(connection)
    assert sorted(gate.arrived) == sorted(ids * 2)
    assert await connection.fetch("SELECT * FROM outbox_receipts ORDER BY id") == first


async def test_a_sink_that_cancels_itself_ends_no_pump(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    odd = {**environment, "OUTBOX_SINKS": f"{SINK}={Fickle.__module__}:{Fickle.__name__}"}
    (id_,) = await write(connection, ["odd"])
    with watch() as events:
        async with Relay(settings_of(odd)):
            await events.wait_for("delivery.retry", id=id_, reason="CancelledError")
            others = await write(connection, [str(n) for n in range(200)])
            await emptied(connection, but=1)
    assert sorted(set(gate.arrived)) == others


async def test_what_a_sink_raises_is_charged_to_the_delivery_at_fault_alone(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    odd = {
        **environment,
        "OUTBOX_SINKS": f"{SINK}={Fickle.__module__}:{Fickle.__name__}",
        "OUTBOX_PUMPS": "1",
    }
    keys = [str(n) for n in range(100)]
    ids = await write(connection, [*keys, "odd", *keys])
    with watch() as events:
        async with Relay(settings_of(odd)):
            await emptied(connection, but=1)
    assert {event.fields["id"] for event in events.matching("delivery.retry")} == {ids[100]}
    assert sorted(set(gate.arrived)) == ids[:100] + ids[101:]


async def test_a_relay_whose_pumps_get_no_connection_leaves_its_lanes_to_one_that_works(
    environment: dict[str, str], database: str, connection: asyncpg.Connection
) -> None:
    async with sql.role(database) as (name, url):
        for statement in grants("relay", name):
            await connection.execute(statement)
        limited = settings_of({**environment, "OUTBOX_DATABASE_URL": url, "OUTBOX_PUMPS": "1"})
        free = settings_of({**environment, "OUTBOX_PUMPS": "1"})
        # Its heartbeat alone.
        await connection.execute(f"ALTER ROLE {name} CONNECTION LIMIT 1")
        with watch() as events:
            async with Relay(limited), Relay(free):
                left = await events.wait_for("sink.left", sink=SINK)
                assert "too many connections" in left.fields["reason"]
                await write(connection, [str(number) for number in range(100)])
                await emptied(connection)
                await connection.execute(f"ALTER ROLE {name} CONNECTION LIMIT -1")

                async def both_serve() -> bool:
                    owners = "SELECT count(DISTINCT owner) FROM outbox_lanes WHERE expires_at > now()"
                    return bool(await connection.fetchval(owners) == 2)

                await until(both_serve, deadline=60.0)
