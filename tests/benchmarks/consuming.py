"""One consumer as a process: RAS or ELS as they ship, or a plain one; tells how long it took.

The plain one is what one would write first: fetch, read JSON, upsert the same rows in one statement for each
partition, commit. No inbox, no parking, no checks, no logs.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer

from outbox.huleedu.els.service import Els
from outbox.huleedu.els.settings import ElsSettings
from outbox.huleedu.events import CONTENT_PROVISIONED, SLOT_ASSIGNED
from outbox.huleedu.ras import Ras
from outbox.logs import configure_logging
from tests.support.huleedu import ras_settings
from tests.support.waiting import until

UPSERT = """
    INSERT INTO ras_slots AS known
        (batch_id, essay_id, file_upload_id, filename, slot_index, said_at, event_id)
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::timestamptz[], $7::uuid[]
    )
    ON CONFLICT (batch_id, essay_id) DO UPDATE SET
        file_upload_id = excluded.file_upload_id, filename = excluded.filename,
        slot_index = excluded.slot_index, said_at = excluded.said_at, event_id = excluded.event_id
"""


def row(value: bytes) -> tuple[Any, ...]:
    envelope = json.loads(value)
    data = envelope["data"]
    names = ("batch_id", "essay_id", "file_upload_id", "original_file_name", "slot_index")
    said_at = datetime.fromisoformat(envelope["event_timestamp"])
    return *(data[name] for name in names), said_at, UUID(envelope["event_id"])


async def plain(database: str, bootstrap: str, group: str, events: int) -> float:
    pool = await asyncpg.create_pool(database, min_size=4, max_size=4)
    kafka = AIOKafkaConsumer(
        SLOT_ASSIGNED,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=256 * 1_024,
    )
    await kafka.start()
    await until(lambda: holds(lambda: bool(kafka.assignment())))
    began, done = monotonic(), 0

    async def upsert(records: list[Any]) -> None:
        async with pool.acquire() as connection:
            for first in range(0, len(records), 200):
                rows = [row(each.value) for each in records[first : first + 200]]
                await connection.execute(UPSERT, *map(list, zip(*rows, strict=True)))

    while done < events:
        fetched = await kafka.getmany(timeout_ms=200)
        await asyncio.gather(*map(upsert, fetched.values()))
        await kafka.commit()
        done += sum(map(len, fetched.values()))
    seconds = monotonic() - began
    await kafka.stop()
    await pool.close()
    return seconds


async def as_shipped(service: Els | Ras, topic: str, outcome: str, events: int) -> float:
    # All that is counted would have to be collected each time, which is work of ours and not the service's.
    counter = service.receiver._metrics.events.labels(topic, outcome)._value
    counted: Callable[[], float] = counter.get
    before = counted()
    async with service:
        consumer = service.consumer
        await until(lambda: holds(lambda: bool(consumer._fetching and consumer._fetching.joined)))
        began = monotonic()
        await until(lambda: holds(lambda: counted() - before >= events), deadline=300.0)
        return monotonic() - began


async def holds(condition: Callable[[], bool]) -> bool:
    return condition()


async def run(who: str, database: str, bootstrap: str, group: str, events: int) -> float:
    if who == "plain":
        return await plain(database, bootstrap, group, events)
    values = {"database_url": database, "kafka_bootstrap_servers": bootstrap, "kafka_group": group}
    if who == "ras":
        ras = ras_settings(database, **values)
        configure_logging(ras)
        return await as_shipped(Ras(ras), SLOT_ASSIGNED, "applied", events)
    els = ElsSettings.model_validate({**values, "port": 0})
    configure_logging(els)
    return await as_shipped(Els(els), CONTENT_PROVISIONED, "assigned", events)


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asyncio.run(run(**json.loads(line)))), flush=True)
