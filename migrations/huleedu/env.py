"""Alembic's environment for the tables of HuleEdu's services, which `outbox migrate` never makes."""

from __future__ import annotations

from outbox.huleedu.migrate import HULEEDU
from outbox.migrate.environment import run
from outbox.operate import connect

run(HULEEDU, connect)
