"""ELS within somebody else's program: it brings no broker's client and no web server with it."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import sys
import outbox.huleedu.els
print(*sorted(name for name in sys.modules if name.partition(".")[0] in sys.argv[1:]))
"""
NOT_NEEDED = ("aiokafka", "alembic", "fastapi", "httpx", "jwt", "redis", "starlette", "uvicorn", "websockets")


def test_to_assign_slots_needs_a_database_alone() -> None:
    command = [sys.executable, "-c", LOOK, *NOT_NEEDED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (our own program)
    assert done.stdout.split() == []
