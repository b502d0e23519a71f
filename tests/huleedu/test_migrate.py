"""HuleEdu's tables: made beside the outbox's and by nobody else, as the models say."""

from __future__ import annotations

import asyncio
import io

import asyncpg
import pytest
from alembic import command
from click.testing import CliRunner

from outbox import SchemaError, Settings, migrate
from outbox.cli import main
from outbox.huleedu.migrate import config, downgrade, upgrade
from outbox.huleedu.schema import TABLES, VERSION_TABLE


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows}


async def test_they_come_and_go_beside_the_outbox(database: str) -> None:
    settings = Settings(database_url=database)
    before = await tables(database)
    assert not before & TABLES
    await asyncio.to_thread(upgrade, settings)
    await asyncio.to_thread(upgrade, settings)
    assert await tables(database) == before | TABLES | {VERSION_TABLE}
    await asyncio.to_thread(downgrade, settings)
    assert await tables(database) == before | {VERSION_TABLE}


async def test_the_command_makes_them(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)
    for _ in range(2):
        result = await asyncio.to_thread(CliRunner().invoke, main, ["huleedu", "migrate"])
        assert result.exit_code == 0, result.output
    assert await tables(database) > TABLES


async def test_the_models_say_what_the_migrations_make(huleedu_database: str) -> None:
    await asyncio.to_thread(command.check, config(Settings(database_url=huleedu_database)))


async def test_the_outboxs_own_in_another_thread_are_not_in_their_way(
    database: str, empty_database: str
) -> None:
    await asyncio.gather(
        asyncio.to_thread(upgrade, Settings(database_url=database)),
        asyncio.to_thread(migrate.upgrade, Settings(database_url=empty_database)),
    )
    assert await tables(database) == await tables(empty_database) | TABLES | {VERSION_TABLE}


async def test_they_are_in_the_connections_schema_wherever_the_outbox_is(empty_database: str) -> None:
    await asyncio.to_thread(upgrade, Settings(database_url=empty_database, database_schema="own"))
    assert await tables(empty_database) == TABLES | {VERSION_TABLE}


async def test_a_migration_that_is_not_known_is_told(huleedu_database: str) -> None:
    connection = await asyncpg.connect(huleedu_database)
    await connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    await connection.close()
    with pytest.raises(SchemaError, match="9999"):
        await asyncio.to_thread(upgrade, Settings(database_url=huleedu_database))


def test_the_statements_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    alembic = config(Settings(database_url="postgresql://nobody@localhost/x"))
    alembic.output_buffer = io.StringIO()
    command.upgrade(alembic, "head", sql=True)
    assert "CREATE TABLE els_slots" in alembic.output_buffer.getvalue()
    assert capsys.readouterr().out == ""
