from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool

from outbox import (
    ConflictError,
    Message,
    new_id,
    once,
    operate,
    prune_inbox,
    write,
    write_sync,
)
from outbox.errors import OperatorError
from outbox.migrate import upgrade
from outbox.observe import watch
from outbox.operate import connect
from outbox.relay import Relay, integrity, lanes, maintenance, operations, prune, statements
from outbox.schema import TABLES, VERSION_TABLE, in_schema
from outbox.schema.catalog import missing
from outbox.schema.grants import PARTS, RIGHTS, Part, grants
from outbox.settings import Settings, load
from outbox.testing import Gate
from tests.support import sql

RELATIONS = (*TABLES, "outbox_state", VERSION_TABLE)


def message() -> Message:
    return Message(type="t", sink="kafka", destination="d", key="k", payload="x")


@asynccontextmanager
async def part(database: str, name: Part, schema: str | None = None) -> AsyncIterator[str]:
    """The URL of a role that is this part."""
    async with sql.role(database) as (role, url), sql.connection(database) as owner:
        for statement in grants(name, role, schema):
            await owner.execute(statement)
        yield url


async def effective(connection: asyncpg.Connection, relation: str) -> set[str]:
    """What the connected role may do with a whole table."""
    rights = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
    rows = await connection.fetch(
        "SELECT r FROM unnest($1::text[]) r WHERE has_table_privilege($2, r)", rights, relation
    )
    return {row[0] for row in rows}


@pytest.mark.parametrize("name", PARTS)
async def test_each_part_has_its_rights_and_no_more(database: str, name: Part) -> None:
    async with part(database, name) as url, sql.connection(url) as connection:
        for relation in RELATIONS:
            granted = re.sub(r"(INSERT|SELECT|UPDATE) \(.*\)", "", RIGHTS[name].get(relation, ""))
            assert await effective(connection, relation) == set(re.findall(r"\w+", granted)), relation


@pytest.mark.parametrize("name", PARTS)
async def test_only_the_owner_changes_the_schema(database: str, name: Part) -> None:
    async with part(database, name) as url, sql.connection(url) as connection:
        for statement in ("ALTER TABLE outbox ADD x text", "DROP VIEW outbox_state", "TRUNCATE outbox_queue"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


# The writer


async def test_a_writer_writes_and_reads_nothing(database: str) -> None:
    first = message()
    async with part(database, "writer") as url, sql.engine(url) as engine:
        async with engine.begin() as connection:
            assert await write(connection, first, message(), strict_order=True) == 2
        message_id = new_id()
        same, other = (
            Message(type="t", sink="kafka", destination="d", payload=payload, message_id=message_id)
            for payload in ("1", "2")
        )
        async with engine.connect() as connection:
            assert await write(connection, same) == 1
            assert await write(connection, same) == 0
            with pytest.raises(ConflictError):
                await write(connection, other)
        for statement in (
            "SELECT id FROM outbox",
            "SELECT count(*) FROM outbox_queue",
            "SELECT * FROM outbox_state",
            "UPDATE outbox SET type = 'x'",
            "DELETE FROM outbox",
            "DELETE FROM outbox_queue",
            "INSERT INTO outbox_queue SELECT",
            "INSERT INTO outbox (message_id, type, sink, destination)"
            " VALUES (gen_random_uuid(), 't', 'kafka', 'd') RETURNING id",
            "INSERT INTO outbox (id, message_id, type, sink, destination) OVERRIDING SYSTEM VALUE"
            " VALUES (1, gen_random_uuid(), 't', 'kafka', 'd')",
            "INSERT INTO outbox (created_at, message_id, type, sink, destination)"
            " VALUES (now(), gen_random_uuid(), 't', 'kafka', 'd')",
            "SELECT nextval('outbox_id_seq')",
        ):
            async with engine.connect() as connection:
                with pytest.raises(ProgrammingError, match="permission denied"):
                    await connection.execute(text(statement))


async def test_a_writer_with_psycopg(database: str) -> None:
    async with part(database, "writer") as url, sql.connection(database) as owner:
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool)

        def attempt() -> int:
            with engine.begin() as connection:
                return write_sync(connection, message(), message(), strict_order=True)

        assert await asyncio.to_thread(attempt) == 2
        assert await owner.fetchval("SELECT count(*) FROM outbox_queue") == 2


async def test_a_writer_may_copy(database: str) -> None:
    async with part(database, "writer") as url, sql.connection(url) as writer:
        await writer.copy_to_table(
            "outbox",
            source=io.BytesIO(b"%s\tt\tkafka\td\n" % str(new_id()).encode()),
            columns=("message_id", "type", "sink", "destination"),
        )
    async with sql.connection(database) as owner:
        assert await owner.fetchval("SELECT count(*) FROM outbox_queue") == 1


async def test_insert_on_the_table_is_enough(database: str) -> None:
    async with sql.role(database) as (role, url), sql.connection(database) as owner:
        await owner.execute(f"GRANT INSERT ON outbox TO {role}")
        async with sql.engine(url) as engine, engine.begin() as connection:
            assert await write(connection, message(), message()) == 2


@pytest.mark.parametrize("schema", [None, "Own"])
async def test_nothing_of_a_writer_shadows_what_is_ours(empty_database: str, schema: str | None) -> None:
    settings = Settings(database_url=empty_database, database_schema=schema)
    await asyncio.to_thread(upgrade, settings)
    async with part(empty_database, "writer", schema) as url, sql.connection(empty_database) as owner:
        role = make_url(url).username
        await owner.execute(f"CREATE SCHEMA evil AUTHORIZATION {role}")
        async with sql.engine(url) as engine, engine.begin() as connection:
            for statement in (
                "CREATE TEMP TABLE outbox_queue (sink text, lane smallint, id bigint, key_hash bigint,"
                " destination_hash bigint, bytes integer, first_due_at timestamptz, due_at timestamptz)",
                "CREATE TEMP TABLE written (id bigint)",
                "CREATE TABLE evil.outbox_queue (LIKE outbox_queue)",
                "CREATE FUNCTION evil.hashtextextended(text, bigint) RETURNS bigint"
                " LANGUAGE sql AS 'SELECT 1'",
                "CREATE FUNCTION evil.greatest(timestamptz, timestamptz) RETURNS timestamptz"
                " LANGUAGE sql AS 'SELECT NULL::timestamptz'",
                "CREATE FUNCTION evil.octet_length(bytea) RETURNS integer LANGUAGE sql AS 'SELECT -1'",
                "CREATE FUNCTION evil.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS 'SELECT NULL::xid8'",
                "SET search_path = evil, pg_temp, public, pg_catalog",
            ):
                await connection.execute(text(statement))
            await write(connection, message(), settings=settings)
            shadow = (
                "SELECT (SELECT count(*) FROM pg_temp.outbox_queue), (SELECT count(*) FROM evil.outbox_queue)"
            )
            assert tuple((await connection.execute(text(shadow))).one()) == (0, 0)
        prefix = f'"{schema}".' if schema else ""
        row = await owner.fetchrow(f"SELECT * FROM {prefix}outbox_queue")
        assert row["bytes"] > 0
        assert row["destination_hash"] == await owner.fetchval("SELECT hashtextextended('d', 0)")


async def test_nobody_feeds_the_queue_through_a_trigger_of_their_own(database: str) -> None:
    async with part(database, "writer") as url, sql.connection(url) as writer:
        await writer.execute("CREATE TEMP TABLE own (id bigint)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="outbox_enqueue"):
            await writer.execute(
                "CREATE TRIGGER t AFTER INSERT ON own REFERENCING NEW TABLE AS written"
                " FOR EACH STATEMENT EXECUTE FUNCTION outbox_enqueue()"
            )


# The others


def statements_of_a_relay() -> list[str]:
    """Every statement of a relay's."""
    found = {
        name: value
        for module in (integrity, lanes, maintenance, operations, prune, statements)
        for name, value in vars(module).items()
        if name.isupper()
        and not name.startswith("_")
        and isinstance(value, str)
        and "{schema}" in value
        and not value.startswith("EXISTS")  # a part of others
    }
    assert {"FETCH", "TAKE", "PRUNE"} <= found.keys()
    return [in_schema(statement, None) for statement in found.values()]


async def test_a_relay_may_run_its_statements(database: str) -> None:
    async with part(database, "relay") as url, sql.connection(url) as relay:
        assert await missing(relay) is None
        for statement in statements_of_a_relay():
            parameters = len(set(re.findall(r"\$\d+", statement)))
            values = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
            await relay.execute(f"PREPARE statement AS {statement}")
            await relay.execute(f"EXPLAIN EXECUTE statement {values}")
            await relay.execute("DEALLOCATE statement")


async def test_an_operator_sees_and_acts(database: str) -> None:
    async with sql.engine(database) as engine, engine.begin() as connection:
        await write(connection, *(message() for _ in range(2)))
        await connection.execute(text("UPDATE outbox_queue SET parked_at = now(), last_error = 'x'"))
    async with part(database, "operator") as url, connect(Settings(database_url=url)) as connection:
        for act in (operate.retry, operate.skip):
            assert (await act(connection, operate.Selection())).rows == 2
        shown = await operate.show(connection, operate.Selection(), payload=True)
        assert [(details.delivery.state, details.payload) for details in shown] == [("skipped", b"x")] * 2


async def test_a_reader_asks_for_the_status(database: str) -> None:
    async with part(database, "reader") as url, connect(Settings(database_url=url)) as connection:
        await operate.status(connection)
        await operate.page(connection, operate.Selection(), limit=1)
        with pytest.raises(ProgrammingError, match="permission denied for table outbox"):
            await operate.show(connection, operate.Selection())


@pytest.mark.parametrize("pooler", ["none", "transaction"])
async def test_rows_that_a_policy_hides_are_an_error_and_no_empty_table(database: str, pooler: str) -> None:
    hide = "ALTER TABLE outbox_queue ENABLE ROW LEVEL SECURITY"
    async with part(database, "reader") as url, sql.connection(database) as owner:
        await owner.execute(hide)
        settings = Settings.model_validate({"database_url": url, "database_pooler": pooler})
        with pytest.raises(OperatorError, match="own the tables, or be a role with BYPASSRLS"):
            async with connect(settings) as connection:
                await operate.status(connection)


async def test_a_relay_says_that_rows_are_hidden_from_it(database: str, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate").environment("gated")
    async with part(database, "relay") as url, sql.connection(database) as owner:
        await owner.execute("ALTER TABLE outbox_queue ENABLE ROW LEVEL SECURITY")
        with watch() as events:
            async with Relay(load({"OUTBOX_DATABASE_URL": url, **gate}, tmp_path / ".env")):
                failed = await events.wait_for("pump.failed")
    assert failed.fields["reason"].endswith("own the tables, or be a role with BYPASSRLS")


async def test_a_consumer_keeps_its_inbox(database: str) -> None:
    message_id = new_id()
    async with part(database, "consumer") as url, sql.engine(url) as engine:
        for expected in (True, False):
            async with engine.begin() as connection, once(connection, "grades", message_id) as first:
                assert first is expected
        async with engine.begin() as connection:
            assert await prune_inbox(connection, "grades", timedelta()) == 1


async def test_grants_in_a_schema_of_its_own(empty_database: str) -> None:
    settings = Settings(database_url=empty_database, database_schema="Own")
    await asyncio.to_thread(upgrade, settings)
    async with part(empty_database, "writer", "Own") as url, sql.begun(url) as session:
        assert await write(session, message(), settings=settings) == 1
    async with (
        part(empty_database, "consumer", "Own") as url,
        sql.begun(url) as session,
        once(session, "grades", new_id(), settings=settings) as first,
    ):
        assert first
    async with part(empty_database, "relay", "Own") as url, sql.connection(url) as relay:
        assert await missing(relay, "Own") is None


def test_a_role_may_have_any_name() -> None:
    assert grants("reader", 'odd "name"', "s")[0] == 'GRANT USAGE ON SCHEMA "s" TO "odd ""name"""'
