"""What the relay is measured against: the same rows, read by as many loops and sent by the same settings.

No lanes, no order, no marking, no receipts: rows are read in four ranges of ids and sent with plain
aiokafka. What goes over the wire is the same.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from itertools import count
from time import monotonic
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from outbox.message import Delivery
from outbox.settings import load
from outbox.sinks.kafka.murmur2 import hashed
from outbox.sinks.kafka.records import record_of

READ = """
    SELECT id, lane, key_hash, 0 AS attempts, false AS deferred, false AS head, false AS uncertain,
           false AS expired, 0 AS bytes, message_id, type, destination, key, payload, headers, created_at,
           expires_at, replay_id
    FROM outbox WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3
"""


async def send(producer: AIOKafkaProducer, deliveries: list[Delivery], topic: str, partitions: int) -> None:
    batches: dict[int, list[BatchBuilder]] = defaultdict(list)
    for delivery in deliveries:
        timestamp, key, value, headers = record_of(delivery, None)
        part = hashed(delivery.key or "")[1] % partitions
        row = {"key": key, "value": value, "timestamp": timestamp, "headers": headers}
        if not batches[part] or batches[part][-1].append(**row) is None:
            batches[part].append(producer.create_batch())
            batches[part][-1].append(**row)
    sent = [
        await producer.send_batch(batch, topic, partition=part)
        for part, each in batches.items()
        for batch in each
    ]
    await asyncio.gather(*sent)


async def loop(
    producer: AIOKafkaProducer, connection: asyncpg.Connection, batch_size: int, ids: range, topic: str
) -> None:
    partitions = len(await producer.partitions_for(topic))
    first = ids.start
    while first < ids.stop:
        rows = await connection.fetch(READ, first, ids.stop - 1, batch_size)
        await send(producer, [Delivery._make(row) for row in rows], topic, partitions)
        first = rows[-1]["id"] + 1


async def run(first: int, last: int, topic: str) -> dict[str, Any]:
    settings = load()
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        acks="all",
        linger_ms=0,
        max_batch_size=settings.kafka.max_batch_bytes,
        max_request_size=8 * settings.kafka.max_batch_bytes,
    )
    connections = [await asyncpg.connect(settings.asyncpg_dsn) for _ in range(settings.pumps)]
    await producer.start()
    share = -(-(last - first + 1) // settings.pumps)
    try:
        began = monotonic()
        async with asyncio.TaskGroup() as group:
            for connection, start in zip(connections, count(first, share), strict=False):
                ids = range(start, min(start + share, last + 1))
                group.create_task(loop(producer, connection, settings.batch_size, ids, topic))
        return {"seconds": monotonic() - began}
    finally:
        await producer.stop()
        for connection in connections:
            await connection.close()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asyncio.run(run(**json.loads(line)))), flush=True)
