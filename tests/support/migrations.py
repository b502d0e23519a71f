"""Migrations that live for one test, and what each migration is held to, today's and every later one."""

from __future__ import annotations

import asyncio
import io
import os
import re
import runpy
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import dedent, indent
from typing import NamedTuple

import asyncpg
from alembic.script import ScriptDirectory

from outbox.migrate import OUTBOX, SCRIPTS, Migrations
from outbox.schema import catalog
from outbox.settings import Settings
from tests.support.sql import connection

_VERSIONS = sorted((SCRIPTS / "versions").glob("0*.py"))
_FILE = """
import os
from pathlib import Path

import sqlalchemy as sa
from alembic import op

from outbox.migrate import steps

revision = "{revision:04}"
down_revision = "{before:04}"


def upgrade():
{upgrade}


def downgrade():
{downgrade}
"""
_RUN = """
import sys
from dataclasses import replace
from pathlib import Path

from outbox.migrate import OUTBOX
from outbox.settings import load

replace(OUTBOX, scripts=Path(sys.argv[1])).upgrade(load())
"""


class Scripts:
    """The outbox's migrations in a folder of their own, all or the first few, and those that a test adds."""

    def __init__(self, folder: Path, *, first: int = len(_VERSIONS)) -> None:
        self._folder = folder
        self._own = _VERSIONS[:first]
        self._last = first
        self._processes: list[asyncio.subprocess.Process] = []
        shutil.copytree(SCRIPTS, folder, ignore=shutil.ignore_patterns("huleedu", "0*", "__pycache__"))
        for path in self._own:
            shutil.copy(path, folder / "versions")

    @property
    def migrations(self) -> Migrations:
        """What they are to `outbox.migrate`."""
        return replace(OUTBOX, scripts=self._folder)

    def add(self, upgrade: str, downgrade: str = "pass") -> str:
        """Add a migration of these statements; returns its revision."""
        self._last += 1
        text = _FILE.format(
            revision=self._last,
            before=self._last - 1,
            upgrade=indent(dedent(upgrade).strip(), "    "),
            downgrade=indent(dedent(downgrade).strip(), "    "),
        )
        revision = f"{self._last:04}"
        self.write(revision, text)
        return revision

    def write(self, revision: str, text: str) -> None:
        """Put the whole file of a migration there."""
        (self._folder / "versions" / f"{revision}_test.py").write_text(text)

    def add_one_of_each_kind(self) -> list[str]:
        """What a release may well bring: a filled column, an index, CHECKs; returns the revisions."""
        written = (runpy.run_path(str(path)).get("ENQUEUE") for path in reversed(self._own))
        enqueue: str = next(filter(None, written))
        filling = enqueue.replace("due_at)", "due_at, share)").replace("END\n    FROM", "END, 1\n    FROM")
        assert filling.count("share") == 1
        assert filling.count(", 1\n") == 1
        column = self.add(
            f"""
            op.add_column("outbox_queue", sa.Column("share", sa.SmallInteger()))
            steps.create_in_schema({filling!r})
            """,
            f"""
            steps.create_in_schema({enqueue!r})
            op.drop_column("outbox_queue", "share")
            """,
        )
        index = self.add(
            'steps.build_index("outbox_queue_share", "outbox_queue", ["sink", "share", "id"])',
            'steps.drop_index("outbox_queue_share", "outbox_queue")',
        )
        checks = self.add(
            """
            steps.add_check("outbox_not_too_large", "octet_length(payload) <= 1000000")
            steps.add_check("outbox_not_too_old", "created_at > '1970-01-01'")
            """,
            """
            steps.drop_check("outbox_not_too_old")
            steps.drop_check("outbox_not_too_large")
            """,
        )
        validated = self.add(
            'steps.validate("outbox_not_too_large", "outbox_not_too_old")',
            'steps.unvalidate("outbox_not_too_large", "outbox_not_too_old")',
        )
        return [column, index, checks, validated]

    async def upgrade(self, url: str, revision: str = "head", *, schema: str | None = None) -> None:
        """Migrate as a program does that has an event loop."""
        settings = Settings(database_url=url, database_schema=schema)
        await asyncio.to_thread(self.migrations.upgrade, settings, revision)

    async def start(self, url: str) -> asyncio.subprocess.Process:
        """Migrate in a process of its own, which may be killed."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _RUN,
            str(self._folder),
            env=inherited | {"OUTBOX_DATABASE_URL": url},
            stderr=asyncio.subprocess.PIPE,
        )
        self._processes.append(process)
        return process

    async def close(self) -> None:
        """End what was started, and read what it said to its end."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.communicate()


def revisions(migrations: Migrations) -> list[str]:
    """Every migration, oldest first."""
    scripts = ScriptDirectory.from_config(migrations.config(Settings()))
    return [script.revision for script in scripts.walk_revisions()][::-1]


# What every migration is held to


class _Tables(NamedTuple):
    """What of the tables must not change, or not in each way."""

    files: Mapping[str, int]
    """The file of each table: another one if it was rewritten."""
    checks: Mapping[tuple[str, str], bool]
    """Table and name → whether it is validated."""


async def complaints(migrations: Migrations, revision: str, url: str) -> list[str]:
    """Migrate a database to `revision`; returns what writers or older relays suffer from the last step."""
    settings, back = Settings(database_url=url), _before(migrations, revision)
    async with connection(url) as db:
        await _go(migrations, back, settings)
        before = await _look(db, migrations)
        await _go(migrations, revision, settings)
        after = await _look(db, migrations)
    printed = io.StringIO()
    await asyncio.to_thread(migrations.sql, settings, printed, f"{back}:{revision}")
    return [
        *_rewritten(before, after),
        *_careless_checks(before, after),
        *_careless_indexes(before, printed.getvalue()),
    ]


def _rewritten(before: _Tables, after: _Tables) -> Iterator[str]:
    for table, file in before.files.items():
        if after.files.get(table) != file:
            yield f"{table} is rewritten or dropped"


def _careless_checks(before: _Tables, after: _Tables) -> Iterator[str]:
    for table, name in after.checks.keys() - before.checks.keys():
        if table in before.files and table.startswith("outbox_"):
            yield f"{name} is a CHECK on {table}, which fails older relays"
        elif table in before.files and after.checks[table, name]:
            yield f"{name} reads all of {table} while nobody can write"


def _careless_indexes(before: _Tables, printed: str) -> Iterator[str]:
    for name, table in re.findall(r"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY)(\S+) ON (\S+)", printed):
        if table in before.files:
            yield f"{name} is built while nobody can write {table}"


async def _look(db: asyncpg.Connection, migrations: Migrations) -> _Tables:
    found = await db.fetch(
        "SELECT relname, relfilenode FROM pg_class WHERE relkind = 'r' AND relname = ANY ($1)",
        migrations.tables,
    )
    checks = await db.fetch(
        "SELECT conrelid::regclass::text, conname, convalidated FROM pg_constraint WHERE contype = 'c'"
    )
    return _Tables(dict(found), {(table, name): validated for table, name, validated in checks})


async def up_and_down(migrations: Migrations, revision: str, url: str) -> list[dict[str, str]]:
    """What is in a database before a migration, after it, after the way back, and after it once more."""
    settings, back = Settings(database_url=url), _before(migrations, revision)
    found: list[dict[str, str]] = []
    async with connection(url) as db:
        for target in (back, revision, back, revision):
            await _go(migrations, target, settings, down=target == back and bool(found))
            found.append(await catalog.catalog(db, relations=(*migrations.tables, "outbox_state")))
    return found


async def _go(migrations: Migrations, revision: str, settings: Settings, *, down: bool = False) -> None:
    if down:
        await asyncio.to_thread(migrations.downgrade, settings, revision)
    elif revision != "base":
        await asyncio.to_thread(migrations.upgrade, settings, revision)


def _before(migrations: Migrations, revision: str) -> str:
    every = ["base", *revisions(migrations)]
    return every[every.index(revision) - 1]
