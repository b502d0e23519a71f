"""Each fault that doctor knows is planted on real servers, and found; where all is well, it is silent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from outbox.finding import Finding
from outbox.operate import connect
from outbox.operate.doctor import Report, checks, examine
from outbox.operate.doctor.patient import Patient
from outbox.operate.doctor.upkeep import wraparound
from outbox.relay import Relay
from outbox.schema.catalog import _EXPECTED, definitions
from outbox.schema.grants import Part, grants
from outbox.sinks.checking import check as check_sink
from outbox.testing import Gate
from tests.relay.by_hand import ByHand
from tests.relay.traffic import QUICK, SINK, emptied, settings_of, write
from tests.support import catalog, sql
from tests.support.kafka import Topics
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Cluster
from tests.support.waiting import PATIENCE, until

Examine = Callable[..., Awaitable[list[str]]]
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def environment(database: str, gate: Gate) -> dict[str, str]:
    return {"OUTBOX_DATABASE_URL": database, **QUICK, **gate.environment(SINK)}


@pytest.fixture
async def owner(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as connection:
        yield connection


@pytest.fixture
def doctor(environment: dict[str, str]) -> Examine:
    """Examines by the checks of these names; returns what was found, each in a line."""

    async def ask(*only: str, **more: Any) -> list[str]:
        report = await report_of(environment | more.pop("environment", {}), *only, **more)
        return [f"{found.severity}: {found.sentence} → {found.remedy}" for found in report.findings]

    return ask


async def report_of(environment: dict[str, str], *only: str, **more: Any) -> Report:
    return await examine(settings_of(environment), check_sink, only=only, **more)


def says(found: list[str], *lines: str) -> bool:
    """Whether these were found, in any order; TIME, NUMBER and SIZE stand for any."""
    patterns = [
        re.escape(each).replace("TIME", TIME).replace("NUMBER", r"\d+").replace("SIZE", r"\d+ \w+")
        for each in lines
    ]
    taken = [[line for line in found if re.fullmatch(pattern, line)] for pattern in patterns]
    return len(found) == len(lines) and all(len(each) == 1 for each in taken)


async def test_it_is_silent_on_a_healthy_system(
    every_postgres: Cluster, redis_url: str, kafka: Topics
) -> None:
    topic = await kafka.create()
    async with every_postgres.database(template=await every_postgres.template()) as url:
        settings = settings_of(
            {
                **QUICK,
                "OUTBOX_DATABASE_URL": url,
                "OUTBOX_REDIS_URL": redis_url,
                "OUTBOX_REDIS_STREAM": "true",
                "OUTBOX_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            }
        )
        async with sql.connection(url) as owner, Relay(settings):
            await write(owner, ["k"] * 5, sink="kafka", destination=topic)
            await write(owner, ["k"] * 5, sink="redis", destination="ws:ada")
            await emptied(owner)
            report = await examine(settings, check_sink)
    assert report.findings == []
    assert report.checked == list(checks(settings))


# The schema

DRIFT = {
    "DROP INDEX outbox_queue_parked_at": "error: The index outbox_queue_parked_at of outbox_queue is "
    "missing: "
    "what looks rows up by it reads all of them. → CREATE INDEX CONCURRENTLY outbox_queue_parked_at ON "
    "outbox_queue USING btree (parked_at) WHERE (parked_at IS NOT NULL)",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox_message'::regclass": "error: The "
    "index "
    "outbox_message of outbox is invalid: nothing is looked up by it. → REINDEX INDEX CONCURRENTLY "
    "outbox_message",
    "ALTER TABLE outbox DISABLE TRIGGER outbox_enqueue": "error: The trigger outbox_enqueue of outbox is not "
    "enabled: what is written is not queued, and nobody sends it. → ALTER TABLE outbox ENABLE TRIGGER "
    "outbox_enqueue; then: outbox repair",
    "DROP TRIGGER outbox_begin_writing ON outbox": "error: The trigger outbox_begin_writing of outbox is "
    "missing: relays may pass by what is committed late. → CREATE TRIGGER outbox_begin_writing BEFORE INSERT "
    "ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_begin_writing(); then: outbox repair",
    "GRANT EXECUTE ON FUNCTION outbox_enqueue() TO PUBLIC": "error: The function outbox_enqueue is "
    "everybody's to "
    "call, and acts with its owner's rights. → REVOKE ALL ON FUNCTION outbox_enqueue FROM PUBLIC",
    "ALTER FUNCTION outbox_written_alike(uuid, text, text, text, text, bytea) SECURITY INVOKER": "error: The "
    "function outbox_written_alike is not what the migrations make. → see its statement: outbox migrate "
    "--sql",
    "CREATE OR REPLACE FUNCTION outbox_begin_writing() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN RETURN NULL; END'": "error: The function outbox_begin_writing is not what the migrations make. → "
    "see its statement: outbox migrate --sql",
    "ALTER TABLE outbox DROP CONSTRAINT outbox_sink_name": "error: The constraint outbox_sink_name of "
    "outbox is "
    "missing. → ALTER TABLE outbox ADD CONSTRAINT outbox_sink_name CHECK ((sink ~ "
    "'^[a-z_][a-z0-9_]{0,62}$'::text))",
    "ALTER TABLE outbox_receipts SET UNLOGGED": "error: The table outbox_receipts is unlogged: a crash of "
    "the "
    "server empties it. → ALTER TABLE outbox_receipts SET LOGGED",
    "ALTER TABLE outbox_queue ALTER COLUMN attempts DROP DEFAULT": "error: The column attempts of "
    "outbox_queue is smallint NOT NULL, and should be smallint NOT NULL DEFAULT 0. → see its statement: "
    "outbox migrate --sql",
    "ALTER TABLE outbox_lanes DROP COLUMN epoch": "error: The column epoch of outbox_lanes is missing. → "
    "ALTER TABLE outbox_lanes ADD COLUMN epoch bigint NOT NULL DEFAULT 0",
    "DROP TABLE outbox_inbox": "error: The table outbox_inbox is missing. → see its statement: outbox "
    "migrate --sql",
    "CREATE INDEX slow ON outbox (created_at)": "warning: The index slow of outbox is none of the outbox's: "
    "whoever writes there pays for it. → DROP INDEX CONCURRENTLY slow, unless it is needed: it is CREATE "
    "INDEX slow ON outbox "
    "USING "
    "btree (created_at)",
}


async def test_each_drift_of_the_schema_is_found(owner: asyncpg.Connection, doctor: Examine) -> None:
    await owner.execute("SET allow_system_table_mods = on")
    for statement in DRIFT:
        await owner.execute(statement)
    assert says(await doctor("schema"), *DRIFT.values())


async def test_a_view_of_another_definition_is_found(owner: asyncpg.Connection, doctor: Examine) -> None:
    view = await owner.fetchval("SELECT pg_get_viewdef('outbox_state'::regclass)")
    other = view.replace("'ready'", "'set'")
    await owner.execute(f"CREATE OR REPLACE VIEW outbox_state AS {other}")
    assert says(
        await doctor("schema"),
        "error: The view outbox_state is not what the migrations make. → see its statement: outbox migrate "
        "--sql",
    )


async def test_an_older_a_newer_and_a_missing_schema_are_told(
    owner: asyncpg.Connection, doctor: Examine, empty_database: str
) -> None:
    await owner.execute("UPDATE outbox_alembic_version SET version_num = '0002'")
    (older,) = await doctor("schema")
    assert older.startswith("error: The schema is at 0002, and this version is at ")
    assert older.endswith(" → outbox migrate")
    await owner.execute("UPDATE outbox_alembic_version SET version_num = '9999'")
    (newer,) = await doctor("schema")
    assert newer.startswith("warning: The schema is at 9999, newer than this version")
    found = await doctor(environment={"OUTBOX_DATABASE_URL": empty_database})
    assert "error: The outbox's tables are not there. → outbox migrate" in found
    assert len(found) < 10


async def test_checks_that_older_rows_violate_are_told(owner: asyncpg.Connection, doctor: Examine) -> None:
    await owner.execute(
        "ALTER TABLE outbox DROP CONSTRAINT outbox_id_positive,"
        " ADD CONSTRAINT outbox_id_positive CHECK (id > 0) NOT VALID"
    )
    (found,) = await doctor("schema")
    assert found.startswith("warning: outbox_id_positive on outbox is not validated: ")
    assert "VALIDATE CONSTRAINT outbox_id_positive" in found


async def test_what_the_doctor_compares_with_is_what_the_migrations_make(owner: asyncpg.Connection) -> None:
    made = catalog.written(await definitions(owner))
    assert _EXPECTED.read_text() == made, "run: python -m tests.support.catalog"


# What the server does by itself


async def test_ids_that_are_cached_or_run_out_are_told(owner: asyncpg.Connection, doctor: Examine) -> None:
    await owner.execute("ALTER TABLE outbox ALTER COLUMN id SET CACHE 50 SET CYCLE")
    await owner.execute("SELECT setval('outbox_id_seq', 4500000000000000000)")
    assert says(
        await doctor("ids"),
        "error: Each session draws 50 ids at once: a later message may get the lower id, and is sent first, "
        "or is "
        "passed by. → ALTER TABLE outbox ALTER COLUMN id SET CACHE 1; then services connect anew",
        "error: Ids do not always rise: their sequence counts down, or begins anew. → "
        "ALTER TABLE outbox ALTER COLUMN id SET INCREMENT 1 SET NO CYCLE",
        "error: NUMBER ids are left, then writing fails: 4500000000000000000 was the last. → "
        "ALTER TABLE outbox ALTER COLUMN id SET NO MAXVALUE; or move to an empty database",
    )


async def test_autovacuum_that_is_off_and_dead_rows_are_told(database: str, doctor: Examine) -> None:
    # A session that ends tells what it did; one that idles does so seconds later.
    async with sql.connection(database) as owner:
        await owner.execute("ALTER TABLE outbox_relays SET (autovacuum_enabled = off)")
        await owner.execute(
            "INSERT INTO outbox_relays (relay_id, name, version, sinks, expires_at)"
            " SELECT gen_random_uuid(), 'r', '1', '{}', now() FROM generate_series(1, 6000)"
        )
        await owner.execute("DELETE FROM outbox_relays")

    async def is_told() -> bool:
        return says(
            await doctor("vacuum"),
            "error: Autovacuum is off for outbox_relays: it grows and slows down for ever. → "
            "ALTER TABLE outbox_relays RESET (autovacuum_enabled)",
            "warning: outbox_relays has NUMBER dead rows beside 0 (no vacuum yet), and autovacuum should "
            "have come "
            "at 500: it does not, or an old snapshot keeps them. → "
            "outbox doctor --only sessions; then: VACUUM outbox_relays",
        )

    await until(is_told)


async def test_old_transaction_ids_are_told(database: str, environment: dict[str, str]) -> None:
    settings = settings_of(environment)
    async with connect(settings) as connection:
        # Never committed: the server would stop.
        await connection.exec_driver_sql("SET LOCAL allow_system_table_mods = on")
        await connection.exec_driver_sql(
            "UPDATE pg_database SET datfrozenxid = ((pg_current_xact_id()::text::bigint - 1700000000) & "
            "4294967295)"
            "::text::xid WHERE datname = current_database()"
        )
        (found,) = await wraparound(Patient(connection, settings, time.time, 60.0))
    assert found.severity == "error"
    name = make_url(database).database
    assert re.match(
        rf"The oldest transaction id of database {name} is 1\d{{9}} transactions old", found.sentence
    )


async def test_what_the_server_has_switched_off_is_told(own_database: str, doctor: Examine) -> None:
    async with sql.connection(own_database) as owner:
        for setting in ("autovacuum = off", "synchronous_standby_names = 'berlin'"):
            await owner.execute(f"ALTER SYSTEM SET {setting}")
        await owner.execute("SELECT pg_reload_conf()")
        await owner.execute("SELECT pg_create_physical_replication_slot('left_behind', true)")

    async def is_told() -> bool:
        return says(
            await doctor("vacuum", "replication", environment={"OUTBOX_DATABASE_URL": own_database}),
            "error: The server has autovacuum = off: tables grow for ever. → "
            "ALTER SYSTEM SET autovacuum = on; then: SELECT pg_reload_conf()",
            "error: synchronous_standby_names = berlin, and none of the 0 standbys at work is one: every "
            "commit "
            "waits, of services and of relays. → bring it back; or: ALTER SYSTEM RESET "
            "synchronous_standby_names; "
            "SELECT pg_reload_conf()",
            "warning: Nobody reads the physical replication slot left_behind, which keeps SIZE of the "
            "write-ahead log. → start its reader; or: SELECT pg_drop_replication_slot('left_behind')",
        )

    await until(is_told)


# Sessions, and what is between


async def test_who_holds_a_snapshot_or_a_transaction_is_told_with_its_query(
    database: str, owner: asyncpg.Connection, doctor: Examine
) -> None:
    async with sql.connection(database) as reader, sql.connection(database) as writer:
        await reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'a secret' AS report")
        await writer.execute("BEGIN")
        await write(writer, ["k"])
        await owner.execute("BEGIN; CREATE TABLE prepared (); PREPARE TRANSACTION 'forgotten'")
        try:
            found = await doctor("sessions", long_seconds=0.0)
            pids = reader.get_server_pid(), writer.get_server_pid()
        finally:
            await owner.execute("ROLLBACK PREPARED 'forgotten'")
    name = make_url(database).database
    told = [
        f"PID {pid} (no name, role postgres, database {name}) has a transaction open since TIME, idle in "
        "transaction"
        for pid in pids
    ]
    ends = [f" → end it: psql -c 'SELECT pg_terminate_backend({pid})'" for pid in pids]
    insert = next(line for line in found if "INSERT INTO outbox" in line).partition("Its query: ")[2]
    assert "a secret" not in "".join(found)
    assert says(
        found,
        f"warning: {told[0]}: dead rows stay while it lasts. Its query: BEGIN ISOLATION LEVEL REPEATABLE "
        "READ; "
        f"SELECT '…' AS report{ends[0]}",
        f"warning: {told[1]}: relays' floors wait for it, and dead rows stay. Its query: {insert}",
        f"warning: The prepared transaction forgotten (role postgres, database {name}) is open since TIME: "
        "relays' "
        f"floors wait for it, and dead rows stay. → its coordinator ends it; or in {name}: "
        "ROLLBACK PREPARED 'forgotten'",
    )


async def test_a_clock_that_is_wrong_is_told(doctor: Examine) -> None:
    (found,) = await doctor("clock", clock=lambda: time.time() - 5)
    assert re.match(r"warning: This host's clock is [45]\.\d s behind that of the database\. → ", found)


async def test_a_pooler_that_the_settings_do_not_know_is_told(pgbouncer: PgBouncer, doctor: Examine) -> None:
    found = await doctor("pooler", "schema", "ids", environment={"OUTBOX_DATABASE_URL": pgbouncer.url})
    assert [line.partition(",")[0] for line in found] == [
        "error: A pooler in transaction mode is before the database"
    ]
    known = {"OUTBOX_DATABASE_URL": pgbouncer.url, "OUTBOX_DATABASE_POOLER": "transaction"}
    assert await doctor("pooler", "schema", "ids", environment=known) == []


async def test_a_database_that_is_not_reached_is_one_finding_without_its_password(doctor: Examine) -> None:
    url = "postgresql://app:opensesame@localhost:1/there"
    (found,) = await doctor("database", "schema", environment={"OUTBOX_DATABASE_URL": url})
    assert found.startswith("error: Cannot reach the database at app:***@localhost:1/there")
    assert "opensesame" not in found


async def test_defaults_of_roles_and_databases_that_hurt_are_told(
    database: str, owner: asyncpg.Connection, doctor: Examine
) -> None:
    name = make_url(database).database
    async with sql.role(database) as (role, _):
        await owner.execute(f"GRANT INSERT ON outbox TO {role}")
        await owner.execute(f"ALTER ROLE {role} SET session_replication_role = replica")
        await owner.execute(f"ALTER ROLE {role} IN DATABASE {name} SET search_path = elsewhere")
        await owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await owner.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        assert says(
            await doctor("defaults"),
            f"error: Role {role} sets session_replication_role = replica: triggers do not fire: what is "
            "written is "
            f'not queued, and nobody sends it. → ALTER ROLE "{role}" RESET session_replication_role',
            f"warning: Role {role} in Database {name} sets search_path = elsewhere: the outbox's tables are "
            "in "
            f'public; OUTBOX_DATABASE_SCHEMA would say so. → ALTER ROLE "{role}" IN DATABASE "{name}" RESET '
            "search_path",
            f"warning: Database {name} sets default_transaction_read_only = on: services cannot write "
            "messages. → "
            f'ALTER DATABASE "{name}" RESET default_transaction_read_only',
            f"warning: Database {name} sets synchronous_commit = off: what a service was told is committed "
            "may be "
            f'lost when the server crashes. → ALTER DATABASE "{name}" RESET synchronous_commit',
        )


async def test_rights_that_are_missing_or_everybodys_are_told(
    database: str, owner: asyncpg.Connection, doctor: Examine
) -> None:
    parts: tuple[Part, Part] = ("relay", "writer")
    async with sql.role(database) as (relay, _), sql.role(database) as (writer, _):
        for part, role in zip(parts, (relay, writer), strict=True):
            for statement in grants(part, role):
                await owner.execute(statement)
        assert await doctor("grants", "row-security") == []
        await owner.execute(f"REVOKE ALL ON outbox_pauses FROM {relay}")
        await owner.execute(f"REVOKE INSERT (headers) ON outbox FROM {writer}")
        await owner.execute("GRANT SELECT ON outbox TO PUBLIC")
        await owner.execute("ALTER TABLE outbox_queue ENABLE ROW LEVEL SECURITY")
        assert says(
            await doctor("grants", "row-security"),
            f"error: Role {relay} is a relay, and lacks SELECT on outbox_pauses. → outbox grants relay "
            f"{relay} | psql, "
            "as the tables' owner",
            f"error: Role {writer} is a writer, and lacks INSERT on outbox (headers). → "
            f"outbox grants writer {writer} | psql, as the tables' owner",
            "warning: Everybody (PUBLIC) has rights on outbox. → REVOKE ALL ON outbox FROM PUBLIC",
            f"error: Row security is on for outbox_queue, and role {relay} would not see all of its rows: "
            "it gets "
            "errors instead. → ALTER TABLE outbox_queue DISABLE ROW LEVEL SECURITY; or ALTER ROLE "
            f'"{relay}" BYPASSRLS',
        )


# Relays


async def test_that_no_relay_is_at_work_and_what_waits_unserved_is_told(
    owner: asyncpg.Connection, doctor: Examine
) -> None:
    await write(owner, ["k"])
    assert says(
        await doctor("relays", "lanes", "sinks"),
        "warning: No relay is at work. → outbox relay; or read in a relay's log what it waits for",
        f"error: Deliveries wait for sink {SINK}, and no living relay serves it. → start a relay that has "
        "it set; "
        f"or see what it is: outbox list --sink {SINK}",
    )


async def test_relays_that_differ_and_what_they_keep_back_is_told(
    environment: dict[str, str], owner: asyncpg.Connection, doctor: Examine
) -> None:
    async with ByHand.made(environment) as relay:
        await relay.beat()
        assert await doctor("relays", "lanes", "sinks") == []
        await owner.execute(
            "UPDATE outbox_relays SET breakers = jsonb_build_array(jsonb_build_object('sink', $1::text,"
            " 'destination', 'orders', 'reason', 'it is away', 'since', now()))",
            SINK,
        )
        name = await owner.fetchval("SELECT name FROM outbox_relays")
        await owner.execute(
            "INSERT INTO outbox_relays (relay_id, name, version, sinks, expires_at)"
            " VALUES (gen_random_uuid(), 'old:1', '0.0.1', '{}', now() + interval '1 hour')"
        )
        found = await doctor("relays", environment={"OUTBOX_ON_PARK": "hold"})
    assert says(
        [re.sub(r"0\.0\.1, \S+\.", "0.0.1, NEW.", line) for line in found],
        f"error: The breaker of destination orders of {SINK} is open since TIME in {name}: it is away. → "
        f"mend that: relays probe it now and then, and go on by themselves; outbox explain {SINK}",
        "warning: Relays of different versions are at work: 0.0.1, NEW. → "
        "end the roll-out: outbox status tells which is which",
        f"warning: {SINK}: ON_PARK is hold here, and continue is in force. → give all relays, and this "
        "command, the "
        "same OUTBOX_ON_PARK; that of the relay that started last is in force",
    )


async def test_lanes_that_nobody_owns_or_the_dead_is_told(
    environment: dict[str, str], owner: asyncpg.Connection, doctor: Examine
) -> None:
    async with ByHand.made(environment) as relay:
        await relay.beat()
        await owner.execute("UPDATE outbox_lanes SET owner = NULL, expires_at = NULL WHERE lane IN (3, 5)")
        await owner.execute(
            "UPDATE outbox_lanes SET owner = gen_random_uuid(), expires_at = now() + interval '1 hour'"
            " WHERE lane = 7"
        )
        found = await doctor("lanes")
    assert says(
        found,
        f"error: No living relay owns 3 of 64 lanes of {SINK} (3, 5, 7); a dead relay's lease on some lasts "
        "until TIME: nothing in them is sent. → a relay takes them with a heartbeat once they are free; "
        "else read the relays' logs",
    )


async def test_what_repair_would_do_is_told(owner: asyncpg.Connection, doctor: Examine) -> None:
    (lost,) = await write(owner, ["k"])
    assert await doctor("repair") == []
    await owner.execute("DELETE FROM outbox_queue WHERE id = $1", lost)
    assert says(
        await doctor("repair"),
        "error: 1 in neither the queue nor the receipts: they are queued, and go out. → outbox repair "
        "--dry-run",
    )


# Checks that cannot be done


async def test_a_check_that_hangs_is_a_finding_and_the_others_go_on(
    owner: asyncpg.Connection, doctor: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.operate.doctor.examination._SECONDS", 2.0)
    async with owner.transaction():
        await owner.execute("LOCK TABLE outbox_sinks")
        found = await doctor("relays", "clock", "sinks")
    assert (
        found
        == [
            "error: It was not done within 2 s. → see what holds it: outbox doctor --only sessions; then "
            "run it again",
            "warning: No relay is at work. → outbox relay; or read in a relay's log what it waits for",
        ][:1]
    )


async def test_what_a_role_may_not_see_is_unknown_and_no_error(
    database: str, environment: dict[str, str]
) -> None:
    async with sql.role(database) as (_, url), ByHand.made(environment) as relay:
        await relay.beat()
        report = await report_of(environment | {"OUTBOX_DATABASE_URL": url})
    assert {finding.severity for finding in report.findings} == {"unknown"}
    assert "It could not be looked at: permission denied for table outbox_alembic_version." in {
        finding.sentence.replace("InsufficientPrivilegeError: ", "") for finding in report.findings
    }


@pytest.mark.parametrize(
    ("part", "unseen"),
    [("operator", {"sessions"}), ("relay", {"sessions"}), ("reader", {"sessions", "repair"})],
)
async def test_parts_may_look_at_all_but_others_sessions_and_readers_at_all_but_every_row(
    database: str, environment: dict[str, str], owner: asyncpg.Connection, part: Part, unseen: set[str]
) -> None:
    async with sql.role(database) as (role, url), ByHand.made(environment) as relay:
        await relay.beat()
        for statement in grants(part, role):
            await owner.execute(statement)
        report = await report_of(environment | {"OUTBOX_DATABASE_URL": url})
    assert {finding.severity for finding in report.findings} == {"unknown"}
    assert {finding.check for finding in report.findings} == unseen


async def test_a_sink_that_cannot_be_reached_or_examined_is_a_finding(doctor: Examine) -> None:
    odd = {
        "OUTBOX_SINKS": f"odd=tests.operate.test_doctor:{OddSink.__name__}",
        "OUTBOX_REDIS_URL": "redis://:opensesame@localhost:1",
    }
    found = await doctor("odd", "redis", environment=odd)
    assert (
        "error: It could not be looked at: ZeroDivisionError: division by zero. → mend that, then run it "
        "again" in found
    )
    assert any(line.startswith("error: It cannot be reached: ") for line in found)
    assert "opensesame" not in json.dumps(found)


async def test_servers_that_take_a_connection_and_say_nothing_are_told(doctor: Examine) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
        there = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        silent = {
            "OUTBOX_DATABASE_URL": f"postgresql://app@{there}/there?connect_timeout=1&sslmode=disable",
            "OUTBOX_KAFKA_BOOTSTRAP_SERVERS": there,
            "OUTBOX_REDIS_URL": f"redis://{there}",
        }
        async with asyncio.timeout(PATIENCE):
            found = await doctor("database", "schema", "kafka", "redis", environment=silent)
    assert [line.partition(": ")[0] for line in found] == ["error"] * 3
    assert found[0].startswith("error: Cannot reach the database at ")
    assert found[1].startswith("error: It cannot be reached: ")
    assert found[2].startswith("error: It cannot be reached: no answer within 3 s. → does it run, ")


class OddSink:
    """Its check fails."""

    def __init__(self, options: Any) -> None:
        del options

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def send(self, deliveries: Any) -> Any:
        return [1 / 0 for _ in deliveries]

    async def stop(self) -> None:
        await asyncio.sleep(0)

    async def check(self, use: Any) -> list[Finding]:
        return [Finding("error", str(1 / 0), str(use))]
