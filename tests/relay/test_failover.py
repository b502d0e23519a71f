"""After a failover ids may be given again: nothing is settled by what an earlier history said of them."""

from __future__ import annotations

import shutil
from uuid import uuid4

import asyncpg
import pytest

from outbox.devstack import Postgres
from outbox.devstack.postgres import wheel_binaries
from outbox.message import Sent
from outbox.observe import watch
from outbox.relay import Relay
from outbox.relay.store import Position, Store, relay_connection, tells_history
from outbox.relay.verdict import Failure
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand
from tests.relay.traffic import QUICK, SINK, arrived, emptied, settings_of, write
from tests.support import programs, servers, sql
from tests.support.pgbouncer import PgBouncer
from tests.support.waiting import until


class Standby(Postgres):
    """What another server was when this one first started, and its successor once that is dead."""

    def __init__(self, primary: Postgres) -> None:
        super().__init__(binaries=primary.binaries, settings=primary.settings)
        self._primary = primary

    @property
    def _password(self) -> str:
        return self._primary._password

    async def _make_cluster(self) -> None:
        # A newer one copies an older server, and not every build of PostgreSQL brings its own.
        program = shutil.which("pg_basebackup", path=f"{self.binaries}:{wheel_binaries()}")
        assert program is not None
        options = ["--checkpoint=fast", "--no-sync", "--write-recovery-conf", f"--pgdata={self._data}"]
        assert await self.run([program, f"--dbname={self._primary.url}", *options])

    async def succeed(self) -> None:
        """Take the dead one's place, whatever it did since."""
        self.port = self._primary.port
        await self.start()
        async with sql.connection(self.url) as connection:
            assert await connection.fetchval("SELECT pg_promote()")


async def test_ids_that_are_given_again_are_not_settled_by_what_was_sent_before(
    own_postgres: Postgres, own_database: str, gate: Gate
) -> None:
    environment = {
        **QUICK,
        **gate.environment(SINK),
        "OUTBOX_DATABASE_URL": own_database,
        "OUTBOX_LEASE_SECONDS": "60",  # The send outlives the failover.
    }
    async with Standby(own_postgres) as standby:
        await standby.stop()
        gate.set(Fault(kind="stall"))
        with watch() as events:
            async with Relay(settings_of(environment)):
                async with sql.connection(own_database) as connection:
                    lost = await write(connection, ["a"] * 100)
                await arrived(gate, 100)
                await own_postgres.kill()
                await standby.succeed()
                async with sql.connection(own_database) as connection:
                    new = await write(connection, ["a"] * 100)
                    assert set(new) & set(lost)
                    gate.set()
                    await emptied(connection)
        assert events.matching("relay.lost_database")
    assert gate.arrived == lost + new


async def test_behind_a_pooler_a_failover_that_nobody_notices_settles_nothing_of_another_history(
    own_postgres: Postgres, own_database: str, gate: Gate
) -> None:
    program = programs.find("pgbouncer") or servers.missing("pgbouncer is not installed")
    async with PgBouncer(program, own_database) as pgbouncer, Standby(own_postgres) as standby:
        await pgbouncer.start()
        environment = {
            **QUICK,
            **gate.environment(SINK),
            "OUTBOX_DATABASE_URL": pgbouncer.url,
            "OUTBOX_DATABASE_POOLER": "transaction",
            "OUTBOX_LEASE_SECONDS": "60",  # The send outlives the failover.
            "OUTBOX_HEARTBEAT_SECONDS": "20",
            "OUTBOX_PUMPS": "1",
        }
        gate.set(Fault(kind="stall"))
        async with Relay(settings_of(environment)):
            async with sql.connection(own_database) as connection:

                async def owned() -> bool:
                    found: int = await connection.fetchval("SELECT count(owner) FROM outbox_lanes")
                    return found == 64

                await until(owned)
                # From here on the standby knows who owns the lanes, and not what is written next.
                await standby.stop()
                lost = await write(connection, ["a", "b", "c"])
            await arrived(gate, 3)
            pgbouncer.pause()
            await own_postgres.kill()
            await standby.succeed()
            pgbouncer.resume()
            async with sql.connection(own_database) as connection:
                new = await write(connection, ["a", "b", "c"])
                assert set(new) & set(lost)
                gate.set()
                await emptied(connection)
    assert gate.arrived == lost + new


@pytest.mark.parametrize("tells_history", [True, False])
async def test_only_what_was_sent_is_settled_whatever_its_id_is_now(
    tells_history: bool, environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    settings = settings_of(environment)
    async with ByHand.made(environment) as relay, relay_connection(settings, "test") as own:
        await relay.beat()
        store = Store(own, settings, SINK, relay.id, tells_history=tells_history)
        positions = [Position(number, relay.lane(number).epoch) for number in sorted(relay.owned)]
        ids = await write(connection, ["a"] * 4)
        fetched = (await store.fetch(relay.request())).deliveries
        if tells_history:
            store._history = "another"
        else:
            fetched = [delivery._replace(message_id=uuid4()) for delivery in fetched]
        failure = Failure(fetched[1], "x", None, counted=True, uncertain=False)
        assert await store.deliver([(fetched[0], Sent())]) == (0, 0.0)
        assert await store.fail(positions, [failure]) == set()
        assert await store.expire(positions, [fetched[2]]) == set()
        await store.mark_uncertain(positions, [fetched[3]])
        left = await connection.fetch("SELECT id, last_error, uncertain FROM outbox_queue ORDER BY id")
        assert [tuple(row) for row in left] == [(id_, None, False) for id_ in ids]


async def test_a_database_may_keep_its_history_to_itself(connection: asyncpg.Connection) -> None:
    assert await tells_history(connection)
    await connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    await connection.execute("SET ROLE pg_monitor")
    assert not await tells_history(connection)
