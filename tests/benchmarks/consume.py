"""How fast RAS and ELS work off a backlog, beside a plain batched consumer that upserts RAS's rows.

All three in turn, again and again in one run, each as a process, on the same servers. A ratio is of one
turn; machines differ, and so do minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from statistics import median
from typing import Any
from uuid import uuid4

import asyncpg
from confluent_kafka import Producer

from outbox import migrate
from outbox.devstack import running_stack
from outbox.huleedu import migrate as huleedu
from outbox.huleedu.els import register_batch
from outbox.huleedu.events import CONTENT_PROVISIONED, SLOT_ASSIGNED, TOPICS
from outbox.settings import load
from tests.support.huleedu import content, engine_on, event, registration
from tests.support.kafka import Topics

Say = Callable[[str], None]

TURNS = 5
SLOT_EVENTS = 30_000
UPLOADS = 9_000
SLOTS = 30
PARTITIONS = 4
TABLES = (
    "outbox, outbox_queue, outbox_receipts, outbox_inbox, ras_slots, ras_batches, els_batches, els_slots,"
    " els_contents, els_duplicates"
)


async def measure(say: Say, *, quick: bool = False) -> dict[str, Any]:
    slot_events, uploads = (n // (10 if quick else 1) for n in (SLOT_EVENTS, UPLOADS))
    rates: dict[str, list[float]] = {"plain": [], "ras": [], "els": []}

    def report(server: str, state: str) -> None:
        say(f"{server}: {state}")

    async with running_stack(load(), keep=None, report=report) as stack:
        await asyncio.to_thread(migrate.upgrade, stack.settings)
        await asyncio.to_thread(huleedu.upgrade, stack.settings)
        found = stack.environment()
        database, bootstrap = found["OUTBOX_DATABASE_URL"], found["OUTBOX_KAFKA_BOOTSTRAP_SERVERS"]
        topics = Topics(bootstrap)
        for topic in TOPICS:
            await topics.create(topic, partitions=PARTITIONS)
        fill(bootstrap, SLOT_ASSIGNED, (slot_event(number) for number in range(slot_events)))
        fill(bootstrap, CONTENT_PROVISIONED, (upload_event(number) for number in range(uploads)))
        for turn in range(TURNS + 1):
            for who, events in (("plain", slot_events), ("ras", slot_events), ("els", uploads)):
                await prepare(database, uploads)
                async with process() as ask:
                    seconds = await ask(
                        who=who,
                        database=database,
                        bootstrap=bootstrap,
                        group=f"{who}-{uuid4()}",
                        events=events,
                    )
                if turn:  # The first warms everything up.
                    rates[who].append(events / seconds)
                say(f"{who}: {events / seconds:,.0f}/s")
    return {
        **{f"{who}_per_second": round(median(found)) for who, found in rates.items()},
        **{f"{who}_ratio": round(ratio(rates[who], rates["plain"]), 3) for who in ("ras", "els")},
        "settings": {"turns": TURNS, "events": slot_events, "uploads": uploads, "cores": os.cpu_count()},
    }


def ratio(ours: list[float], plain: list[float]) -> float:
    return median(mine / other for mine, other in zip(ours, plain, strict=True))


def slot_event(number: int) -> tuple[str, dict[str, Any]]:
    batch = f"batch-{number // SLOTS}"
    data = {
        "event": "essay.slot.assigned",
        "batch_id": batch,
        "essay_id": f"{batch}/essay-{number % SLOTS}",
        "file_upload_id": str(uuid4()),
        "text_storage_id": str(uuid4()),
        "original_file_name": f"essay {number}.txt",
        "slot_index": number % SLOTS,
        "correlation_id": str(uuid4()),
        "timestamp": datetime.now(UTC).isoformat(),
    }
    return batch, event(SLOT_ASSIGNED, data)


def upload_event(number: int) -> tuple[str, dict[str, Any]]:
    batch = f"batch-{number // SLOTS}"
    return batch, event(CONTENT_PROVISIONED, content(number, batch))


def fill(bootstrap: str, topic: str, events: Iterator[tuple[str, dict[str, Any]]]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20})
    for key, body in events:
        producer.produce(topic, json.dumps(body).encode(), key)
        producer.poll(0)
    assert producer.flush(60) == 0


async def prepare(database: str, uploads: int) -> None:
    """Empty the tables, and register the batches of all uploads."""
    connection = await asyncpg.connect(database)
    await connection.execute(f"TRUNCATE {TABLES}")
    await connection.close()
    engine = engine_on(database)
    async with engine.begin() as session:
        for number in range(-(-uploads // SLOTS)):
            await register_batch(session, registration(f"batch-{number}", SLOTS, f"user-{number}"), uuid4())
    await engine.dispose()


@asynccontextmanager
async def process() -> AsyncIterator[Callable[..., Any]]:
    """A consumer's process; `await ask(who=…)` has it consume, and gives the seconds that it took."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.benchmarks.consuming"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert child.stdin
    assert child.stdout
    stdin, stdout = child.stdin, child.stdout

    async def ask(**values: Any) -> float:
        stdin.write(json.dumps(values).encode() + b"\n")
        await stdin.drain()
        async with asyncio.timeout(300):
            return float(await stdout.readline())

    try:
        yield ask
    finally:
        stdin.close()
        await child.wait()
