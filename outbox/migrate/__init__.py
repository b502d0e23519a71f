"""Brings a database to the schema of this version, from the wheel or from the repository.

These functions have an event loop of their own: where one is running, call them in a thread
(`await asyncio.to_thread(upgrade, settings)`). Each migration commits by itself; what was interrupted goes on
with the next run, and of two runs at the same time one waits for the other. Only this room needs Alembic.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import MetaData

from outbox.errors import SchemaError
from outbox.schema import TABLES, VERSION_TABLE, metadata
from outbox.settings import Settings

# What Alembic offers to its scripts, `alembic.context` and `op`, is global to the process.
_one_at_a_time = threading.Lock()

_PACKAGE = Path(__file__).parents[1]
_PACKAGED = _PACKAGE / "_migrations"

SCRIPTS = _PACKAGED if _PACKAGED.is_dir() else _PACKAGE.parent / "migrations"
"""Where the migrations are: inside the wheel's package, or beside it in the repository."""


@dataclass(frozen=True, slots=True)
class Migrations:
    """Tables that are migrated together: their scripts, and where the database notes how far it is."""

    scripts: Path
    """The folder with `env.py` and `versions`."""
    tables: tuple[str, ...]
    """Nothing else in the database is looked at."""
    version_table: str
    """Alembic's own, beside a service's `alembic_version`."""
    metadata: MetaData
    """The tables as the models describe them."""
    in_schema: bool = True
    """Whether they are in the schema that OUTBOX_DATABASE_SCHEMA names, not the connection's first one."""

    def upgrade(self, settings: Settings, revision: str = "head") -> None:
        """Migrates up to `revision`; does nothing where the database is there already.

        Raises `OperatorError` where the database cannot be reached or refuses, or a lock is not to be had;
        `SchemaError` where it is at a migration of a newer version.
        """
        with self._alembic(settings) as alembic:
            command.upgrade(alembic, revision)

    def downgrade(self, settings: Settings, revision: str = "base") -> None:
        """Migrates down to `revision`; `base` drops every table with what is in it."""
        with self._alembic(settings) as alembic:
            command.downgrade(alembic, revision)

    def sql(self, settings: Settings, output: TextIO, revisions: str = "head") -> None:
        """Writes the statements of a migration, for those who run SQL by hand.

        `revisions` is where it ends, from nothing, or where it starts and ends: `0001:head`.
        """
        with self._alembic(settings, output) as alembic:
            command.upgrade(alembic, revisions, sql=True)

    def config(self, settings: Settings, output: TextIO = sys.stdout) -> Config:
        """Returns what Alembic needs to know, for further commands of it."""
        alembic = Config(output_buffer=output, attributes={"settings": settings})
        # ConfigParser would take a percent sign in a path for an interpolation.
        alembic.set_main_option("script_location", str(self.scripts).replace("%", "%%"))
        alembic.set_main_option("path_separator", "os")
        return alembic

    @contextmanager
    def _alembic(self, settings: Settings, output: TextIO = sys.stdout) -> Iterator[Config]:
        """Lets one command run at a time; says in one line what a revision means that is not among ours."""
        alembic = self.config(settings, output)
        try:
            with _one_at_a_time:
                yield alembic
        except CommandError as error:
            if not isinstance(error.__cause__, ResolutionError):
                raise SchemaError(str(error)) from error
            known = [script.revision for script in ScriptDirectory.from_config(alembic).walk_revisions()]
            raise SchemaError(
                f"Migration {error.__cause__.argument} is not known here, only "
                f"{', '.join(reversed(known))}; if the database is at it, a newer version of this package "
                "migrated it: use that one"
            ) from error


OUTBOX = Migrations(SCRIPTS, TABLES, VERSION_TABLE, metadata())
"""The outbox's own tables."""

upgrade = OUTBOX.upgrade
downgrade = OUTBOX.downgrade
sql = OUTBOX.sql
config = OUTBOX.config
