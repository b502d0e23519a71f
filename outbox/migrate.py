"""Bring a database to the schema of this version, from the wheel or from the repository.

These functions have an event loop of their own: where one is running, call them in a thread
(`await asyncio.to_thread(upgrade, settings)`). A run is one transaction; a second one at the same time waits
for it. Only this module needs Alembic.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from alembic import command
from alembic.config import Config
from alembic.script.revision import ResolutionError
from alembic.util import CommandError

from outbox.errors import SchemaError
from outbox.schema import REVISIONS
from outbox.settings import Settings

# What Alembic offers to its scripts, `alembic.context` and `op`, is global to the process.
_one_at_a_time = threading.Lock()


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Migrate up to `revision`; does nothing where the database is there already.

    Raises `OperatorError` where the database cannot be reached or refuses, `SchemaError` where it is at a
    migration of a newer version.
    """
    with _alembic():
        command.upgrade(config(settings), revision)


def downgrade(settings: Settings, revision: str = "base") -> None:
    """Migrate down to `revision`; `base` drops every table of the outbox with what is in it."""
    with _alembic():
        command.downgrade(config(settings), revision)


def sql(settings: Settings, output: TextIO, revision: str = "head") -> None:
    """Write the statements of a migration from nothing to `revision`, for those who run SQL by hand."""
    with _alembic():
        command.upgrade(config(settings, output), revision, sql=True)


def config(settings: Settings, output: TextIO = sys.stdout) -> Config:
    """What Alembic needs to know, for further commands of it."""
    alembic = Config(output_buffer=output, attributes={"settings": settings})
    # ConfigParser would take a percent sign in a path for an interpolation.
    alembic.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    alembic.set_main_option("path_separator", "os")
    return alembic


def _scripts() -> Path:
    packaged = Path(__file__).parent / "_migrations"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "migrations"


@contextmanager
def _alembic() -> Iterator[None]:
    """Run a command, one at a time; say in one line what a revision means that is not among ours."""
    try:
        with _one_at_a_time:
            yield
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise SchemaError(str(error)) from error
        raise SchemaError(
            f"Migration {error.__cause__.argument} is not known here, only {', '.join(REVISIONS)}; if the "
            "database is at it, a newer version of this package migrated it: use that one"
        ) from error
