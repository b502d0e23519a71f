"""After a failover ids may be given again: nothing is settled by what an earlier history said of them."""

from __future__ import annotations

import shutil

import asyncpg

from outbox.devstack import Postgres
from outbox.devstack.postgres import wheel_binaries
from outbox.message import Sent
from outbox.observe import watch
from outbox.relay import Relay
from outbox.testing import Fault, Gate
from tests.relay.traffic import QUICK, SINK, arrived, emptied, settings_of, write
from tests.support import sql
from tests.support.deliveries import delivery


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


async def test_where_the_database_does_not_tell_its_history_any_loss_may_be_a_failover(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    relay = Relay(settings_of(environment))
    pump = relay._parts.pumps[SINK][0]

    async def reconnect() -> bool:
        """Whether it still knows what it sent."""
        pump._unsettled = [(delivery("slots"), Sent())]
        await relay._recall(connection)
        return bool(pump._unsettled)

    await reconnect()
    assert await reconnect()
    await connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    await connection.execute("SET ROLE pg_monitor")
    assert not await reconnect()
    assert not await reconnect()
