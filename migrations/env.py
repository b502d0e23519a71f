"""Alembic's environment for the outbox's own tables."""

from __future__ import annotations

from outbox.migrate import OUTBOX
from outbox.migrate.environment import run
from outbox.operate import connect

run(OUTBOX, connect)
