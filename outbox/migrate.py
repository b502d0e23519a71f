"""Bring a database to the schema of this version, from the wheel or from the repository."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

from outbox.settings import Settings


def _scripts() -> Path:
    packaged = Path(__file__).parent / "_migrations"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "migrations"


def config(
    settings: Settings, *, connection: Connection | None = None, output: TextIO | None = None
) -> Config:
    """What Alembic needs to know. With `connection`, the migrations run on it, in its transaction."""
    alembic = Config(
        output_buffer=output or sys.stdout, attributes={"settings": settings, "connection": connection}
    )
    # ConfigParser would take a percent sign in a path for an interpolation.
    alembic.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    alembic.set_main_option("path_separator", "os")
    return alembic


def upgrade(settings: Settings, revision: str = "head", *, connection: Connection | None = None) -> None:
    """Migrate up to `revision`; does nothing where the database is there already."""
    command.upgrade(config(settings, connection=connection), revision)


def downgrade(settings: Settings, revision: str = "base", *, connection: Connection | None = None) -> None:
    """Migrate down to `revision`; `base` drops every table of the outbox with what is in it."""
    command.downgrade(config(settings, connection=connection), revision)


def sql(settings: Settings, output: TextIO, revision: str = "head") -> None:
    """Write the statements of a migration from nothing to `revision`, for those who run SQL by hand."""
    command.upgrade(config(settings, output=output), revision, sql=True)
