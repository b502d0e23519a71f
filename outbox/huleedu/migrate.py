"""Bring a database to the tables of HuleEdu's services; those of the outbox are `outbox.migrate`'s.

Like there, call these in a thread where an event loop is running. `alembic -n huleedu` does the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from outbox.errors import SchemaError
from outbox.migrate import config as outbox_config
from outbox.settings import Settings


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Migrate up to `revision`; does nothing where the database is there already.

    Raises `OperatorError` where the database cannot be reached or refuses, `SchemaError` where it is at a
    migration that is not known here.
    """
    with _explained():
        command.upgrade(config(settings), revision)


def downgrade(settings: Settings, revision: str = "base") -> None:
    """Migrate down to `revision`; `base` drops these tables with what is in them."""
    with _explained():
        command.downgrade(config(settings), revision)


def config(settings: Settings) -> Config:
    """What Alembic needs to know, for further commands of it."""
    alembic = outbox_config(settings)
    scripts = Path(alembic.get_main_option("script_location") or "") / "huleedu"
    alembic.set_main_option("script_location", str(scripts).replace("%", "%%"))
    return alembic


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise SchemaError(f"HuleEdu's tables: {error}") from error
