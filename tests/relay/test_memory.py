"""A backlog of large messages passes through a relay, and never lies in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from outbox.testing import Gate
from tests.relay.traffic import emptied, write
from tests.support.relay_process import RelayProcess

ROWS, BYTES = 2_000, 900_000


def peak_rss(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return int(status["VmHWM"].split()[0]) * 1_024


async def test_large_messages_are_fetched_by_their_bytes(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    gate: Gate,
    relay_process: Callable[..., Awaitable[RelayProcess]],
) -> None:
    await write(connection, [None], payload=b"x" * BYTES)
    # Copied as it is stored, which is faster than compressing it 2,000 times.
    await connection.execute(
        "INSERT INTO outbox (message_id, type, sink, destination, payload)"
        " SELECT gen_random_uuid(), type, sink, destination, payload"
        " FROM outbox, generate_series(2, $1)",
        ROWS,
    )
    relay = await relay_process(environment)
    await emptied(connection)
    assert len(gate.arrived) == ROWS
    peak = peak_rss(relay.pid)
    relay.terminate()
    assert await relay.exited() == 0
    assert peak < 200_000_000
