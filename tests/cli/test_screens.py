"""What commands print on a terminal, at 80 and at 140 columns, as somebody has looked at it.

Where it should be different, delete its file in `screens/`, run this, and look at the new one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner

from outbox.cli import main
from tests.support import sql

SCREENS = Path(__file__).parent / "screens"
MESSAGE = "0193c2e1-0000-7000-8000-00000000000"
COMMANDS = {
    "status": "status",
    "list": "list",
    "list-page": "list --state parked --limit 2 --columns id,key,state,error",
    "groups": "groups",
    "stuck": "stuck --parked --sink redis",
    "show": "show 3",
    "trace": f"trace {MESSAGE}1",
    "explain": "explain 3",
    "explain-sink": "explain redis",
    "doctor": "doctor",
    "pause": "pause kafka --destination orders --key k1 --for 2h --reason 'the consumer is rebuilt'",
    "retry-dry-run": "retry --sink kafka --dry-run",
    "retry-left-out": "retry 5 --reason 'the limit is raised'",
    "park": "park 3 6 --yes --reason 'the consumer is rebuilt'",
    "replay": "replay --sink redis --type order.placed --yes --reason 'it was lost' --to ws:3f2c --rate 100",
    "acts": "acts",
    "acts-one": "acts 1",
    "cancel": "cancel 1",
}
# A delivery of each kind; `g` tells them apart.
WRITE = f"""
    INSERT INTO outbox (message_id, type, sink, destination, key, payload, headers, created_at)
    SELECT ('{MESSAGE}' || g)::uuid, (ARRAY['order.placed', 'order.paid'])[1 + g % 2],
           (ARRAY['kafka', 'redis'])[1 + (g % 4 = 0)::integer],
           (ARRAY['orders', 'ws:3f2b'])[1 + (g % 4 = 0)::integer], 'k' || g % 2, '{{}}',
           '{{"correlation_id": "c-1"}}', now() - interval '3 hours 5 minutes 30 seconds'
    FROM generate_series(1, 8) AS g
"""
CHANGES = (
    "UPDATE outbox_queue SET parked_at = now() - interval '2 hours 10 minutes 30 seconds', attempts = 3,"
    " last_error = 'the record of ' || 1048577 + id || ' bytes is over the limit of 1048576', blocks = true"
    " WHERE id IN (1, 5)",
    "UPDATE outbox_queue SET parked_at = now() - interval '1 hour 10 minutes 30 seconds', attempts = 1,"
    " last_error = 'no subscriber' WHERE id = 4",
    "UPDATE outbox_queue SET due_at = now() + interval '20 minutes', attempts = 2, last_error = 'timed out',"
    " blocks = true, uncertain = true WHERE id = 2",
    "INSERT INTO outbox_sinks (sink, stuck_after, on_park) VALUES ('kafka', '5 minutes', 'hold'),"
    " ('redis', '5 minutes', 'continue')",
    "INSERT INTO outbox_relays (relay_id, name, version, sinks, started_at, expires_at) VALUES"
    " ('00000000-0000-0000-0000-000000000001', 'web-7:1', '0.1.0', '{redis}',"
    " now() - interval '1 hour 1 minute 30 seconds', now() + interval '1 hour')",
    "INSERT INTO outbox_lanes (sink, lane, owner, epoch, expires_at) SELECT 'redis', lane,"
    " '00000000-0000-0000-0000-000000000001', 1, now() + interval '1 hour'"
    " FROM generate_series(0, 63) AS lane",
    "CREATE INDEX slow ON outbox (created_at)",
    "ALTER TABLE outbox DISABLE TRIGGER outbox_enqueue",
    "WITH done AS (DELETE FROM outbox_queue WHERE id = 8 RETURNING id)"
    " INSERT INTO outbox_receipts (id, outcome, attempts, receivers) SELECT id, 'delivered', 0, 2 FROM done",
)
VARIES = {
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z": "2026-01-01 00:00:00.000Z",
    r"\d{4}-\d\d-\d\d(\s+)\d\d:\d\d:\d\dZ": r"2026-01-01\g<1>00:00:00Z",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*\+\d\d": "2026-01-01T00:00:00+00",
}


@pytest.fixture
async def observer(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as connection:
        yield connection


@pytest.mark.parametrize("columns", [80, 140])
async def test_what_commands_print_is_what_somebody_has_looked_at(
    columns: int, database: str, observer: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("outbox.cli.output.is_terminal", lambda: True)
    for command in ("acting", "acts", "pause"):
        monkeypatch.setattr(f"outbox.cli.{command}.getuser", lambda: "eve")
    for statement in (WRITE, *CHANGES):
        await observer.execute(statement)
    different = []
    for name, command in COMMANDS.items():
        environment = {"OUTBOX_DATABASE_URL": database, "COLUMNS": str(columns)}
        arguments = [each.strip("'") for each in re.findall(r"'[^']*'|\S+", command)]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), command
        screen = f"$ outbox {command}\n{result.output}"
        for pattern, fixed in VARIES.items():
            screen = re.sub(pattern, fixed, screen)
        screen = "\n".join(line.rstrip() for line in screen.splitlines()) + "\n"
        kept = SCREENS / f"{name}-{columns}.txt"
        if not kept.exists():
            kept.write_text(screen)
            different.append(f"{kept.name} is new: look at it")
        elif kept.read_text() != screen:
            different.append(f"{kept.name}:\n{screen}")
    assert not different, "\n".join(different)
