from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import make_url

from outbox import OperatorError, SchemaError
from outbox.migrate import config, downgrade, upgrade
from outbox.schema import REVISIONS, TABLES, VERSION_TABLE, catalog
from outbox.settings import Settings
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Cluster
from tests.support.sql import connection

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def db(empty_database: str) -> AsyncIterator[asyncpg.Connection]:
    async with connection(empty_database) as made:
        yield made


@pytest.fixture
def settings(empty_database: str) -> Settings:
    return Settings(database_url=empty_database)


async def run(*arguments: str, cwd: Path, **environment: str) -> None:
    """Run Python."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=cwd, env=os.environ | environment
    )
    assert await process.wait() == 0


async def tables(db: asyncpg.Connection, schema: str = "public") -> set[str]:
    return {row[0] for row in await db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)}


# Up, down, up


@pytest.mark.parametrize("schema", [None, "Own", "outbox"])
async def test_up_down_and_up_again_is_the_same(every_postgres: Cluster, schema: str | None) -> None:
    async with every_postgres.database() as url, connection(url) as db:
        settings = Settings(database_url=url, database_schema=schema)
        await asyncio.to_thread(upgrade, settings)
        fresh = await catalog.catalog(db, schema)
        assert await tables(db, schema or "public") == {*TABLES, VERSION_TABLE}
        await asyncio.to_thread(downgrade, settings)
        assert await catalog.catalog(db, schema) == {}
        assert await tables(db, schema or "public") == {VERSION_TABLE}
        await asyncio.to_thread(upgrade, settings)
        assert await catalog.catalog(db, schema) == fresh
        await asyncio.to_thread(command.check, config(settings))
        if schema:
            assert await tables(db) == set()


async def test_a_schema_of_its_own_holds_the_same(postgres: Cluster) -> None:
    found = []
    for schema in (None, "own"):  # No name that is in a literal, which `catalog` would cut.
        async with postgres.database() as url, connection(url) as db:
            await asyncio.to_thread(upgrade, Settings(database_url=url, database_schema=schema))
            found.append(await catalog.catalog(db, schema))
    assert found[0] == found[1]


async def test_where_it_is_there_already_nothing_happens(
    db: asyncpg.Connection, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(upgrade, settings)
    await db.execute(
        "INSERT INTO outbox (message_id, type, sink, destination)"
        " VALUES (gen_random_uuid(), 't', 'kafka', 'd')"
    )
    with caplog.at_level(logging.INFO):
        await asyncio.to_thread(upgrade, settings)
    assert "Running upgrade" not in caplog.text
    assert await db.fetchval("SELECT count(*) FROM outbox_queue") == 1


async def test_two_at_once_both_succeed(db: asyncpg.Connection, empty_database: str, tmp_path: Path) -> None:
    environment = {"OUTBOX_DATABASE_URL": empty_database, "OUTBOX_DATABASE_SCHEMA": "own"}
    await asyncio.gather(*(run("-m", "outbox", "migrate", cwd=tmp_path, **environment) for _ in range(2)))
    assert await catalog.version(db, "own") == REVISIONS[-1]


async def test_two_threads_take_turns(postgres: Cluster) -> None:
    async with postgres.database() as one, postgres.database() as other:
        chosen = [Settings(database_url=url) for url in (one, other)]
        await asyncio.gather(*(asyncio.to_thread(upgrade, settings) for settings in chosen))


async def test_whoever_owns_a_schema_may_migrate_into_it(db: asyncpg.Connection, empty_database: str) -> None:
    role = f"role_{os.urandom(6).hex()}"
    await db.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; CREATE SCHEMA own AUTHORIZATION {role}")
    try:
        url = make_url(empty_database).set(username=role, password="x").render_as_string(hide_password=False)
        await asyncio.to_thread(upgrade, Settings(database_url=url, database_schema="own"))
        assert await catalog.missing(db, "own") is None
        with pytest.raises(OperatorError, match="permission denied for database"):
            await asyncio.to_thread(upgrade, Settings(database_url=url, database_schema="other"))
    finally:
        await db.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_behind_a_pooler_it_asks_for_postgres_itself(pgbouncer: PgBouncer) -> None:
    settings = Settings(database_url=pgbouncer.url, database_pooler="transaction")
    for migrate in (downgrade, upgrade):
        with pytest.raises(OperatorError, match="Postgres' own address in OUTBOX_DATABASE_URL"):
            await asyncio.to_thread(migrate, settings)


async def test_logging_stays_as_the_program_set_it_up(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    mine = logging.getLogger("tests.migrations")
    before = (list(logging.root.handlers), logging.root.level, mine.level, mine.disabled)
    with caplog.at_level(logging.INFO, logger="alembic"):
        await asyncio.to_thread(upgrade, settings)
    assert (list(logging.root.handlers), logging.root.level, mine.level, mine.disabled) == before
    assert "Running upgrade  -> 0001" in caplog.text


# What goes wrong


async def test_a_database_of_a_newer_version_is_left_alone(
    db: asyncpg.Connection, settings: Settings
) -> None:
    await asyncio.to_thread(upgrade, settings)
    await db.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(
        SchemaError, match=r"Migration 9999 is not known here, only 0001, .*; .* a newer version"
    ):
        await asyncio.to_thread(upgrade, settings)
    assert await catalog.version(db) == "9999"


async def test_a_database_that_is_not_there() -> None:
    settings = Settings(database_url="postgresql://me:secret@127.0.0.1:1/x")
    with pytest.raises(OperatorError, match=r"Cannot reach the database at me.*127.0.0.1:1/x") as caught:
        await asyncio.to_thread(upgrade, settings)
    assert "secret" not in str(caught.value)


async def test_a_migration_that_fails_leaves_nothing(db: asyncpg.Connection, settings: Settings) -> None:
    await db.execute("CREATE TABLE outbox_receipts (id bigint)")
    with pytest.raises(OperatorError, match='relation "outbox_receipts" already exists'):
        await asyncio.to_thread(upgrade, settings)
    assert await tables(db) == {"outbox_receipts"}


# What a relay asks when it starts


def test_the_revisions_are_those_of_the_scripts(settings: Settings) -> None:
    scripts = ScriptDirectory.from_config(config(settings))
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


async def test_what_is_missing(
    db: asyncpg.Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await catalog.version(db) is None
    assert "not there; run `outbox migrate`" in (await catalog.missing(db) or "")
    await asyncio.to_thread(upgrade, settings)
    assert await catalog.version(db) == REVISIONS[-1]
    assert await catalog.missing(db) is None
    monkeypatch.setattr(catalog, "REVISIONS", (*REVISIONS, "9999"))
    assert f"is at {REVISIONS[-1]}, and this version needs 9999" in (await catalog.missing(db) or "")
    await db.execute(f"UPDATE {VERSION_TABLE} SET version_num = 'newer'")
    assert await catalog.missing(db) is None
    await db.execute(f"DELETE FROM {VERSION_TABLE}")
    assert "not there" in (await catalog.missing(db) or "")


# Drift


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        ("DROP TRIGGER outbox_enqueue ON outbox", "trigger outbox.outbox_enqueue"),
        ("ALTER TABLE outbox DISABLE TRIGGER outbox_enqueue", "trigger outbox.outbox_enqueue"),
        ("ALTER FUNCTION outbox_enqueue() SECURITY INVOKER", "function outbox_enqueue"),
        ("ALTER FUNCTION outbox_enqueue() RESET search_path", "function outbox_enqueue"),
        ("GRANT EXECUTE ON FUNCTION outbox_enqueue() TO PUBLIC", "function outbox_enqueue"),
        ("ALTER TABLE outbox DROP CONSTRAINT outbox_key_length", "constraint outbox.outbox_key_length"),
        ("ALTER TABLE outbox ADD CONSTRAINT x CHECK (true) NOT VALID", "constraint outbox.x"),
        ("DROP INDEX outbox_queue_parked_at", "index outbox_queue.outbox_queue_parked_at"),
        ("CREATE INDEX x ON outbox (type)", "index outbox.x"),
        ("ALTER TABLE outbox_queue RESET (autovacuum_vacuum_threshold)", "table outbox_queue"),
        ("ALTER TABLE outbox_queue SET UNLOGGED", "table outbox_queue"),
        ("ALTER TABLE outbox ENABLE ROW LEVEL SECURITY", "table outbox"),
        ("COMMENT ON TABLE outbox IS 'mine'", "table outbox"),
        ("COMMENT ON COLUMN outbox.key IS NULL", "column outbox.key"),
        ("ALTER TABLE outbox ALTER created_at SET DEFAULT now()", "column outbox.created_at"),
        ("ALTER TABLE outbox ALTER id SET GENERATED BY DEFAULT", "column outbox.id"),
        ("ALTER TABLE outbox ALTER message_id DROP NOT NULL", "column outbox.message_id"),
        ("ALTER TABLE outbox ADD x text", "column outbox.x"),
        ("DROP VIEW outbox_state", "view outbox_state"),
        ("CREATE FUNCTION outbox_x() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function outbox_x"),
    ],
)
async def test_drift_is_noticed(database: str, change: str, noticed: str) -> None:
    async with connection(database) as db:
        before = await catalog.catalog(db)
        await db.execute(change)
        after = await catalog.catalog(db)
    differing = {name for name in before | after if before.get(name) != after.get(name)}
    assert differing == {noticed}


async def test_alembic_notices_what_it_can(database: str) -> None:
    async with connection(database) as db:
        await db.execute("ALTER TABLE outbox ADD x text")
    with pytest.raises(CommandError, match="New upgrade operations detected"):
        await asyncio.to_thread(command.check, config(Settings(database_url=database)))


# From the wheel


async def test_the_wheel_migrates_without_the_repository(
    db: asyncpg.Connection, empty_database: str, tmp_path: Path
) -> None:
    def unpacked() -> Path:
        (wheel,) = tmp_path.glob("*.whl")
        # No top-level `migrations`, which would shadow a service's own.
        folders = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
        assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"outbox"}
        zipfile.ZipFile(wheel).extractall(tmp_path / "site")
        return tmp_path / "site"

    await run("-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path), cwd=ROOT)
    site = await asyncio.to_thread(unpacked)
    here = f"import outbox; assert outbox.__file__.startswith({str(site)!r}), outbox.__file__"
    await run("-c", here, cwd=tmp_path, PYTHONPATH=str(site))
    await run(
        "-m", "outbox", "migrate", cwd=tmp_path, PYTHONPATH=str(site), OUTBOX_DATABASE_URL=empty_database
    )
    assert await catalog.missing(db) is None


# Beside a service's own Alembic

SERVICE = """
from alembic import context
from sqlalchemy import Column, Integer, MetaData, Table, create_engine
{imported}

metadata = MetaData()
Table("orders", metadata, Column("id", Integer, primary_key=True))

engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata{configured})
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""


def service(folder: Path, url: str, *, filtered: bool) -> Config:
    """A service with a table of its own, and perhaps with the filter that the README shows."""
    alembic = Config(folder.with_suffix(".ini"), stdout=io.StringIO())
    command.init(alembic, str(folder))
    psycopg = make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    alembic.set_main_option("sqlalchemy.url", psycopg.replace("%", "%%"))
    imported = "from outbox import include_name" if filtered else ""
    configured = ", include_name=include_name" if filtered else ""
    (folder / "env.py").write_text(SERVICE.format(imported=imported, configured=configured))
    return alembic


async def test_a_service_keeps_its_own_migrations_beside_ours(
    db: asyncpg.Connection, settings: Settings, empty_database: str, tmp_path: Path
) -> None:
    alembic = await asyncio.to_thread(service, tmp_path / "service", empty_database, filtered=True)
    await asyncio.to_thread(upgrade, settings)
    await asyncio.to_thread(command.revision, alembic, "orders", autogenerate=True)
    (script,) = (tmp_path / "service" / "versions").glob("*.py")
    assert "create_table('orders'" in script.read_text()
    assert "outbox" not in script.read_text()
    await asyncio.to_thread(command.upgrade, alembic, "head")
    await asyncio.to_thread(command.check, alembic)
    await asyncio.to_thread(command.check, config(settings))
    assert await tables(db) == {*TABLES, VERSION_TABLE, "orders", "alembic_version"}
    await asyncio.to_thread(downgrade, settings)
    assert await tables(db) == {VERSION_TABLE, "orders", "alembic_version"}
    await asyncio.to_thread(command.check, alembic)


async def test_without_the_filter_it_would_drop_them(
    settings: Settings, empty_database: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(upgrade, settings)
    alembic = await asyncio.to_thread(service, tmp_path / "service", empty_database, filtered=False)
    await asyncio.to_thread(command.revision, alembic, "orders", autogenerate=True)
    (script,) = (tmp_path / "service" / "versions").glob("*.py")
    assert "op.drop_table('outbox_queue')" in script.read_text()
