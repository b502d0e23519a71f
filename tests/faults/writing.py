"""Writers that go on whatever becomes of the database: each has keys that are its own, and takes turns."""

from __future__ import annotations

import asyncio
from random import Random

import asyncpg

from tests.faults.place import CHANNELS, TOPICS

GOOD = "campaign.good"
"""The type of what must arrive."""

_INSERT = """
    INSERT INTO outbox (message_id, type, sink, destination, key, payload)
    SELECT gen_random_uuid(), $1, $2, $3, $4, convert_to(n::text, 'UTF8')
    FROM generate_series(1, $5::int) AS n
"""
_LONGEST_PAUSE_SECONDS = 0.04

DISTURBED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What is raised where a fault comes in between."""


async def write_on(url: str, name: str, random: Random, over: asyncio.Event) -> None:
    """Writes bursts until it is over; what does not commit was not written."""
    keys = [f"{name}-{number}" for number in range(5)]
    while not over.is_set():
        try:
            connection = await asyncpg.connect(url, timeout=5, command_timeout=30)
        except DISTURBED:
            await asyncio.sleep(0.2)
            continue
        try:
            while not over.is_set():
                await _write(connection, random, keys)
                await asyncio.sleep(random.random() * _LONGEST_PAUSE_SECONDS)
        except DISTURBED:
            continue
        finally:
            connection.terminate()


async def _write(connection: asyncpg.Connection, random: Random, keys: list[str]) -> None:
    async with connection.transaction():
        for _ in range(random.choice((1, 1, 1, 3))):
            sink, destinations = random.choice((("kafka", TOPICS), ("redis", CHANNELS)))
            key = random.choice(keys) if random.random() < 0.9 else None
            rows = random.choice((1, 1, 2, 5, 20))
            await connection.execute(_INSERT, GOOD, sink, random.choice(destinations), key, rows)
        await asyncio.sleep(random.choice((0, 0, 0.01)))
