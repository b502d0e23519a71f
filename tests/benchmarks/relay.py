"""How fast one relay delivers to Kafka, beside the same rows read and sent without any bookkeeping.

Servers are warmed up by a drain that does not count; nothing looks at the tables or the topic while
something is measured. What arrived is counted afterwards, by librdkafka.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg

from outbox import migrate
from outbox.devstack import running_stack
from outbox.settings import Settings, load
from tests.benchmarks.count import Count, count
from tests.support.kafka import Topics

Say = Callable[[str], None]

DRAINS = 5
ROWS = 60_000
BURST = 30
PAYLOAD_BYTES = 1_000
PARTITIONS = 8
RATE = 1_000
"""Messages a second while latency is measured."""
SECONDS = 30.0
PENDING = (10_000, 100_000, 1_000_000)
"""Backlogs over which the cost of a row must stay flat."""

FILL = """
    INSERT INTO outbox (message_id, type, sink, destination, key, payload, headers)
    SELECT gen_random_uuid(), 'benchmark.row', 'kafka', $1, 'key-' || ($2 + n) / $4,
           convert_to(rpad(($2 + n) || ' ', $5, 'x'), 'UTF8'),
           '{"content_type": "text/plain", "source_service": "benchmark", "schema_version": "1"}'
    FROM generate_series(0, $3 - 1) AS n
"""


@dataclass
class Bench:
    """What a measurement needs: a database, a broker, and processes of its own that work on them."""

    settings: Settings
    environment: dict[str, str]
    connection: asyncpg.Connection
    topics: Topics
    topic: str
    written: int = 0

    async def fill(self, rows: int) -> tuple[int, int]:
        """Commit that many rows and let the database write them out; returns their first and last id."""
        first = await self.connection.fetchval("SELECT last_value + is_called::integer FROM outbox_id_seq")
        await self.connection.execute(FILL, self.topic, self.written, rows, BURST, PAYLOAD_BYTES)
        self.written += rows
        await self.connection.execute("CHECKPOINT")
        return first, first + rows - 1


@dataclass
class Worker:
    """A process that answers each line with one JSON object."""

    process: asyncio.subprocess.Process

    async def ask(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        answer = await self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that should {order} ended with {await self.process.wait()}")
        found: dict[str, Any] = json.loads(answer)
        return found


@asynccontextmanager
async def worker(bench: Bench, name: str) -> AsyncIterator[Worker]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.benchmarks.{name}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=bench.environment,
        limit=2**26,
    )
    try:
        yield Worker(process)
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()


async def measure(say: Say, *, quick: bool = False) -> dict[str, Any]:
    scale = 10 if quick else 1
    async with prepared(say) as bench:
        # First, before autovacuum has a backlog to clear away.
        latency = await measure_latency(bench, say, SECONDS / scale)
        drains = await drain_repeatedly(bench, say, ROWS // scale)
        pending = {rows: await drain_once(bench, say, rows // scale) for rows in PENDING}
        say("counting what arrived")
        arrived = await asyncio.to_thread(count, bench.topics.bootstrap, bench.topic)
        return figures(bench, drains, pending, latency, arrived)


def figures(
    bench: Bench,
    drains: list[tuple[float, float]],
    pending: dict[int, dict[str, Any]],
    latency: dict[str, float],
    arrived: Count,
) -> dict[str, Any]:
    rate, ceiling = median(drain[1] for drain in drains), median(drain[0] for drain in drains)
    return {
        "rows_per_s": round(rate),
        "ceiling_rows_per_s": round(ceiling),
        "ratio": round(median(drain[1] / drain[0] for drain in drains), 3),
        "inversions": arrived.inversions,
        "lost": bench.written - arrived.distinct,
        "duplicates": arrived.duplicates,
        "peak_rss_mb": round(max(each["peak_rss_mb"] for each in pending.values()), 1),
        "latency_ms": latency,
        "cpu_us_per_row_by_pending": {
            rows: round(each["cpu_seconds"] / each["rows"] * 1e6, 2) for rows, each in pending.items()
        },
        "rows_per_s_by_pending": {
            rows: round(each["rows"] / each["seconds"]) for rows, each in pending.items()
        },
        "all_rows_per_s": [round(drain[1]) for drain in drains],
        "all_ceiling_rows_per_s": [round(drain[0]) for drain in drains],
        "settings": {
            "rows": ROWS,
            "payload_bytes": PAYLOAD_BYTES,
            "burst": BURST,
            "partitions": PARTITIONS,
            "pumps": bench.settings.pumps,
            "batch_size": bench.settings.batch_size,
            "poll_interval_seconds": bench.settings.poll_interval_seconds,
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
        },
    }


@asynccontextmanager
async def prepared(say: Say, kafka: str | None = None) -> AsyncIterator[Bench]:
    settings = {**os.environ, "OUTBOX_KAFKA_BOOTSTRAP_SERVERS": kafka} if kafka else os.environ
    async with running_stack(
        load(settings), keep=None, report=lambda server, state: say(f"{server}: {state}")
    ) as stack:
        # One sink only: what is measured is one relay's way to Kafka.
        environment = {**os.environ, **stack.environment(), "OUTBOX_HTTP_PORT": "0"}
        environment.pop("OUTBOX_REDIS_URL", None)
        await asyncio.to_thread(migrate.upgrade, stack.settings)
        topics = Topics(environment["OUTBOX_KAFKA_BOOTSTRAP_SERVERS"])
        connection = await asyncpg.connect(stack.settings.asyncpg_dsn)
        try:
            topic = await topics.create(partitions=PARTITIONS)
            bench = Bench(stack.settings, environment, connection, topics, topic)
            await require_durability(bench)
            say("warming up")
            async with worker(bench, "drain") as relay:
                await bench.fill(ROWS)
                await relay.ask(rows=ROWS)
            yield bench
        finally:
            await connection.close()


async def require_durability(bench: Bench) -> None:
    for setting in ("fsync", "synchronous_commit"):
        if await bench.connection.fetchval(f"SHOW {setting}") != "on":
            raise SystemExit(f"{setting} is off: the figures would say nothing")


async def drain_repeatedly(bench: Bench, say: Say, rows: int) -> list[tuple[float, float]]:
    """Rates, in rows a second: the ceiling's and the relay's, in turn."""
    rates = []
    ceiling_topic = await bench.topics.create(partitions=PARTITIONS)
    async with worker(bench, "ceiling") as ceiling, worker(bench, "drain") as relay:
        for drain in range(-1, DRAINS):
            first, last = await bench.fill(rows)
            bound = await ceiling.ask(first=first, last=last, topic=ceiling_topic)
            drained = await relay.ask(rows=rows)
            rate, limit = rows / drained["seconds"], rows / bound["seconds"]
            say(f"drain {drain}: ceiling {limit:,.0f} rows/s, relay {rate:,.0f}")
            # The first of each process warms it up.
            if drain >= 0:
                rates.append((limit, rate))
    return rates


async def drain_once(bench: Bench, say: Say, rows: int) -> dict[str, Any]:
    """One drain of a backlog by a new process, so that its memory and CPU are of this alone."""
    for start in range(0, rows, 100_000):
        await bench.fill(min(100_000, rows - start))
    async with worker(bench, "drain") as relay:
        drained = await relay.ask(rows=rows)
    say(f"{rows:,} pending: {rows / drained['seconds']:,.0f} rows/s, {drained['peak_rss_mb']:.0f} MB")
    return {**drained, "rows": rows}


async def measure_latency(bench: Bench, say: Say, seconds: float) -> dict[str, float]:
    """From the writer's COMMIT, sent, to the broker's acknowledgement, received by the relay."""
    messages = round(RATE * seconds)
    with TemporaryDirectory() as folder:
        committed, acknowledged = Path(folder, "committed"), Path(folder, "acknowledged")
        async with worker(bench, "drain") as relay, worker(bench, "commit") as writer:
            acks: Awaitable[Any] = asyncio.ensure_future(
                relay.ask(rows=messages, acknowledged=str(acknowledged))
            )
            await writer.ask(
                topic=bench.topic,
                start=bench.written,
                messages=messages,
                rate=RATE,
                size=PAYLOAD_BYTES,
                committed=str(committed),
            )
            await acks
        bench.written += messages
        sent, times = await asyncio.to_thread(_both, committed, acknowledged)
    waits = [times[row] - moment for row, moment in sent.items()]
    cuts = quantiles(waits, n=100)
    found = {f"p{percent}": round(cuts[percent - 1] * 1_000, 2) for percent in (50, 95, 99)}
    say(f"latency at {RATE:,} messages/s: {found} ms")
    return found


def _both(*files: Path) -> list[dict[str, float]]:
    return [json.loads(file.read_text()) for file in files]
