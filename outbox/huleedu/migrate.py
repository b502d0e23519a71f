"""Brings a database to the tables of HuleEdu's services; those of the outbox are `outbox.migrate`'s.

Like there, call these in a thread where an event loop is running. `alembic -n huleedu` does the same. The
tables are in the connection's own schema, whatever that of the outbox is.
"""

from __future__ import annotations

from outbox.huleedu.schema import TABLES, VERSION_TABLE, metadata
from outbox.migrate import SCRIPTS, Migrations

HULEEDU = Migrations(SCRIPTS / "huleedu", tuple(TABLES), VERSION_TABLE, metadata, in_schema=False)
"""The tables of ELS, RAS and the page."""

upgrade = HULEEDU.upgrade
downgrade = HULEEDU.downgrade
sql = HULEEDU.sql
config = HULEEDU.config
