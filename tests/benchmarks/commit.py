"""A writer in a process of its own: single messages in transactions of their own, at a steady rate."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg

from outbox.settings import load

WRITERS = 8
INSERT = """
    INSERT INTO outbox (message_id, type, sink, destination, key, payload)
    VALUES (gen_random_uuid(), 'benchmark.row', 'kafka', $1, $2, $3)
    RETURNING id
"""


@dataclass(frozen=True, slots=True)
class Order:
    """What to write: `messages` numbered from `start`, `rate` a second, and where to note the times."""

    topic: str
    start: int
    messages: int
    rate: int
    size: int
    committed: str


async def run(order: Order) -> dict[str, Any]:
    connections = [await asyncpg.connect(load().asyncpg_dsn) for _ in range(WRITERS)]
    times: dict[int, float] = {}
    numbers = iter(range(order.messages))
    # After the relay had time to take its lanes.
    began = monotonic() + 3.0

    async def write(connection: asyncpg.Connection) -> None:
        for number in numbers:
            await asyncio.sleep(max(0.0, began + number / order.rate - monotonic()))
            place = order.start + number
            payload = f"{place} ".ljust(order.size, "x").encode()
            # Writers do not take turns, so each key is of one message: order is not what is measured here.
            async with connection.transaction():
                row = await connection.fetchval(INSERT, order.topic, f"single-{place}", payload)
                times[row] = monotonic()

    await asyncio.gather(*map(write, connections))
    await asyncio.to_thread(Path(order.committed).write_text, json.dumps(times))
    for connection in connections:
        await connection.close()
    return {"messages": len(times)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asyncio.run(run(Order(**json.loads(line))))), flush=True)
