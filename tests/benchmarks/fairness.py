"""How long others wait beside a backlog: messages at a steady rate, while many wait for another topic.

From when a message was written to when its delivery was recorded, by the database's clock. Once with nothing
else, once beside a backlog for a topic that is missing, once beside one for a topic that works and is
drained meanwhile. The first two seconds, beside a relay that starts, are told apart.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any

from outbox.devstack import Kafka
from tests.benchmarks.relay import FILL, PARTITIONS, PAYLOAD_BYTES, Bench, Say, Worker, prepared, worker
from tests.support.waiting import until

PENDING = 1_000_000
RATE = 100
SECONDS = 20.0
STARTING = 2.0
_WAITS = """
    SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99, 1])
        WITHIN GROUP (ORDER BY extract(epoch FROM r.settled_at - o.created_at)::float * 1000)
    FROM outbox o JOIN outbox_receipts r USING (id)
    WHERE o.destination = $1
"""


async def measure(say: Say, *, quick: bool = False, pending: int = PENDING) -> dict[str, Any]:
    scale = 10 if quick else 1
    found: dict[str, Any] = {}
    # Else a topic that is missing would be made.
    kafka = Kafka(properties={"auto.create.topics.enable": "false"})
    async with kafka, prepared(say, kafka.url) as bench:
        works = await bench.topics.create(partitions=PARTITIONS)
        backlogs = {
            "nothing": None,
            "a topic that is missing": "missing",
            "a topic that works": works,
        }
        for beside, topic in backlogs.items():
            await bench.connection.execute("TRUNCATE outbox, outbox_queue, outbox_receipts")
            for start in range(0, pending // scale if topic else 0, 100_000):
                await bench.connection.execute(FILL, topic, start, 100_000, 30, PAYLOAD_BYTES)
            await bench.connection.execute("CHECKPOINT")
            found[f"beside {beside}"] = waits = await _waits(bench, SECONDS / scale)
            if topic == "missing" and waits["pending_in_the_end"] < pending // scale:
                raise SystemExit("the topic is not missing: the figures would say nothing")
            say(f"beside {beside}: {found[f'beside {beside}']}")
    return found


async def _waits(bench: Bench, seconds: float) -> dict[str, Any]:
    first, topic = [await bench.topics.create(partitions=PARTITIONS) for _ in range(2)]
    async with _relay(bench) as log, worker(bench, "commit") as writer:
        await _write(writer, first, round(RATE * STARTING))
        await _delivered(bench, first, round(RATE * STARTING))
        await _write(writer, topic, round(RATE * seconds))
        pending = await bench.connection.fetchval("SELECT count(*) FROM outbox_queue")
        await _delivered(bench, topic, round(RATE * seconds))
    names = ("p50_ms", "p95_ms", "p99_ms", "longest_ms")
    waits = await bench.connection.fetchval(_WAITS, topic)
    return {
        "longest_at_the_start_ms": round((await bench.connection.fetchval(_WAITS, first))[-1], 1),
        **{name: round(wait, 1) for name, wait in zip(names, waits, strict=True)},
        "pending_in_the_end": pending,
        "sessions_lost": sum(b"lost_database" in line for line in log),
    }


async def _write(writer: Worker, topic: str, messages: int) -> None:
    with TemporaryDirectory() as folder:
        await writer.ask(
            topic=topic,
            start=0,
            messages=messages,
            rate=RATE,
            size=PAYLOAD_BYTES,
            committed=f"{folder}/committed",
        )


async def _delivered(bench: Bench, topic: str, messages: int) -> None:
    async def are() -> bool:
        count = await bench.connection.fetchval(
            "SELECT count(*) FROM outbox_receipts JOIN outbox USING (id) WHERE destination = $1", topic
        )
        return bool(count == messages)

    await until(are, deadline=300.0)


@asynccontextmanager
async def _relay(bench: Bench) -> AsyncIterator[list[bytes]]:
    """A relay as it ships within the block; gives what it logs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "outbox", "relay", env=bench.environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr
    log: list[bytes] = []

    async def read(stream: asyncio.StreamReader) -> None:
        log.extend([line async for line in stream])

    reading = asyncio.create_task(read(process.stderr))
    try:
        yield log
    finally:
        process.terminate()
        await reading
        await process.wait()
