"""Each part alone, with the rights of `outbox grants` and no others, does all of its work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner
from sqlalchemy import make_url

from outbox import ConflictError, Message, create_engine, new_id, once, operate, prune_inbox
from outbox import write as say
from outbox.cli import COMMANDS, main
from outbox.migrate import upgrade
from outbox.observe import watch
from outbox.operate import Selection
from outbox.relay import Relay
from outbox.schema.grants import Part, grants
from outbox.settings import Settings
from outbox.testing import Fault, Gate
from tests.relay.traffic import QUICK, SINK, emptied, settings_of, state, write
from tests.support import sql
from tests.support.postgres import Cluster


@asynccontextmanager
async def part(database: str, name: Part, schema: str | None = None) -> AsyncIterator[str]:
    """The URL of a role that is this part and nothing else."""
    async with sql.role(database) as (role, url), sql.connection(database) as owner:
        for statement in grants(name, role, schema):
            await owner.execute(statement)
        yield url


@pytest.fixture
async def owner(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as connection:
        yield connection


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


async def test_a_relay_alone_does_all_of_its_work(
    database: str, owner: asyncpg.Connection, gate: Gate
) -> None:
    async with part(database, "relay") as url:
        environment = {**QUICK, **gate.environment(SINK), "OUTBOX_DATABASE_URL": url}
        environment |= {"OUTBOX_PRUNE_INTERVAL_SECONDS": "0.1", "OUTBOX_RETENTION": "1h"}
        gate.set(
            Fault(kind="permanent", key="bad"),
            Fault(kind="transient", key="flaky", probability=0.5, arrives=True),
            Fault(kind="unavailable", key="away", probability=0.5, arrives=True),
        )
        with watch() as events:
            async with Relay(settings_of(environment)):
                await events.wait_for("relay.ready")
                ids = await write(owner, [*("flaky", "away", None) * 20])
                (parked,) = await write(owner, ["bad"])
                (late,) = await write(owner, ["late"], expires_in=-1.0)
                await emptied(owner, but=1)
                await owner.execute("DELETE FROM outbox WHERE id = $1", parked)
                await owner.execute("UPDATE outbox_receipts SET settled_at = now() - interval '1 day'")
                await events.wait_for("prune.done")
                other = {**environment, "OUTBOX_ON_PARK": "hold"}
                async with Relay(settings_of(other)):
                    await events.wait_for("settings.overruled")
                assert await state(owner, late) is None
        assert {*ids} <= set(gate.arrived)
        for trouble in ("pump.failed", "maintenance.failed", "prune.failed", "relay.lost_database"):
            assert events.matching(trouble) == []
        for seen in ("delivery.parked", "delivery.expired", "delivery.retry", "breaker.opened"):
            assert events.matching(seen), seen


async def test_an_operator_alone_may_give_every_command(
    database: str, owner: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second, third, fourth = await write(owner, ["k"] * 4, sink="kafka")
    message = await owner.fetchval("SELECT message_id FROM outbox WHERE id = $1", first)
    await owner.execute("INSERT INTO outbox_sinks VALUES ('kafka', '5 minutes', 'continue')")
    await owner.execute("UPDATE outbox_queue SET parked_at = now(), last_error = 'x', blocks = id % 2 = 0")
    async with part(database, "operator") as url:

        async def run(*command: str) -> int:
            result = await asyncio.to_thread(
                CliRunner().invoke, main, command, env={"OUTBOX_DATABASE_URL": url}
            )
            assert "permission denied" not in result.output, command
            assert result.exception is None or isinstance(result.exception, SystemExit), command
            return result.exit_code

        assert await run("status") == 1
        commands = [
            ["stuck"],
            ["stuck", "--parked"],
            ["list"],
            ["groups"],
            ["trace", str(message)],
            ["pause", "kafka", "--for", "1h"],
            ["resume", "kafka"],
            ["show", str(first)],
            ["show", str(message), "--reveal"],
            ["retry", str(first), "--dry-run"],
            ["retry", str(first)],
            ["skip", str(second)],
            ["skip", str(third), "--dry-run"],
            ["retry", "--all", "--yes"],
            ["park", "--all", "--yes", "--state", "ready", "--reason", "later"],
            ["skip", "--all", "--yes", "--state", "parked"],
            ["replay", "--sink", "kafka", "--all", "--dry-run"],
            ["replay", "--sink", "kafka", "--all", "--yes"],
            ["acts"],
        ]
        if "repair" in COMMANDS:
            commands += [["repair", "--dry-run"], ["repair", "--yes"]]
        for command in commands:
            assert await run(*command) == 0, command
    assert (
        await owner.fetchval("SELECT count(*) FROM outbox_receipts WHERE id = ANY ($1)", [first, fourth]) == 2
    )


async def test_a_reader_alone_reads_everything_but_payloads_and_headers(
    database: str, owner: asyncpg.Connection
) -> None:
    async with part(database, "reader") as url:
        (id_,) = await write(owner, ["k"], sink="kafka")
        message = await owner.fetchval("SELECT message_id FROM outbox WHERE id = $1", id_)
        async with operate.connect(Settings.model_validate({"database_url": url})) as connection:
            assert (await operate.status(connection)).sinks
            assert await operate.count(connection, Selection()) == 1
            assert len((await operate.page(connection, Selection(), limit=5)).deliveries) == 1
            assert await operate.depths(connection)
            assert await operate.groups(connection, Selection()) == []
            assert await operate.pauses(connection) == []
            traced = await operate.trace(connection, message)
            assert traced is not None
            assert [each.message_id for each in await operate.follow(connection, message)] == [message]
        async with sql.connection(url) as reader:
            for column in ("payload", "headers", "*"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await reader.execute(f"SELECT {column} FROM outbox")


async def test_a_writer_and_a_consumer_alone_even_where_public_has_no_function(
    database: str, owner: asyncpg.Connection
) -> None:
    await owner.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC")
    told = new_id()
    async with part(database, "writer") as url:
        engine = create_engine(Settings.model_validate({"database_url": url}))
        message = Message(type="t", sink="kafka", destination="d", key="k", payload="x", message_id=told)
        other = Message(
            type="t", sink="kafka", destination="d", key="k", payload="y", message_id=message.message_id
        )
        for new in (1, 0):
            async with engine.begin() as connection:
                assert await say(connection, message, strict_order=True) == new
        async with engine.connect() as connection:
            with pytest.raises(ConflictError):
                await say(connection, other)
        await engine.dispose()
    async with part(database, "consumer") as url:
        engine = create_engine(Settings.model_validate({"database_url": url}))
        for expected in (True, False):
            async with engine.begin() as connection, once(connection, "grades", told) as first:
                assert first is expected
        async with engine.begin() as connection:
            assert await prune_inbox(connection, "grades", timedelta()) == 1
        await engine.dispose()


async def test_public_has_nothing_where_default_privileges_gave_it_everything(
    empty_database: str,
) -> None:
    async with sql.connection(empty_database) as owner:
        await owner.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
        await asyncio.to_thread(upgrade, Settings.model_validate({"database_url": empty_database}))
    async with part(empty_database, "consumer") as url, sql.connection(url) as consumer:
        seen = await consumer.fetch(
            "SELECT relname FROM pg_class WHERE relname LIKE 'outbox%' AND relkind IN ('r', 'v')"
            " AND has_any_column_privilege(oid, 'SELECT, INSERT, UPDATE')"
        )
        assert [name for (name,) in seen] == ["outbox_inbox"]


async def test_without_a_schema_it_is_the_one_where_the_owner_made_the_tables(
    postgres: Cluster, empty_database: str
) -> None:
    async with sql.connection(empty_database) as owner:
        await owner.execute('CREATE SCHEMA "Odd one"')
    name = make_url(empty_database).database
    await postgres.execute(f'ALTER DATABASE {name} SET search_path = "Odd one"')
    await asyncio.to_thread(upgrade, Settings.model_validate({"database_url": empty_database}))
    async with (
        part(empty_database, "consumer") as url,
        sql.begun(url) as session,
        once(session, "grades", new_id()) as first,
    ):
        assert first
