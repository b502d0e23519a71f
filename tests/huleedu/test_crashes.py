"""ELS in three processes that are killed, a relay, and RAS, on real servers: nothing twice, nothing lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from outbox import Settings
from outbox.huleedu.events import (
    CONTENT_PROVISIONED,
    ESSAYS_REGISTERED,
    EXCESS_CONTENT,
    PROVISIONING_COMPLETED,
    SLOT_ASSIGNED,
    TOPICS,
)
from outbox.huleedu.ras import Ras
from outbox.relay import Relay
from outbox.settings import KafkaSettings, RedisSettings
from tests.support.huleedu import CREDENTIALS, content, engine_on, event, ras_settings, registration
from tests.support.kafka import Topics
from tests.support.producing import produce
from tests.support.relay_process import RelayProcess
from tests.support.waiting import until

pytestmark = pytest.mark.slow

SLOTS, UPLOADS, AT_ONCE, PARTITIONS = 30, 100, 10, 3


class HuleEdu:
    """Three ELS processes in one group, each `outbox huleedu els`, and who hears of their work."""

    def __init__(self, url: str, kafka: Topics, redis_url: str, cwd: Path) -> None:
        self.batch = f"batch-{uuid4()}"
        """The topics hold what other tests have said, of other batches."""
        self.kafka = kafka
        self.processes: list[RelayProcess] = []
        self.engine = engine_on(url)
        self._url = url
        self._redis_url = redis_url
        self._cwd = cwd
        self._settings = {
            "ELS_DATABASE_URL": url,
            "ELS_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "ELS_KAFKA_GROUP": f"els-{uuid4()}",
            "ELS_KAFKA_SESSION_TIMEOUT_SECONDS": "1",
            "ELS_LOG_FORMAT": "json",
            "ELS_PORT": "0",
        }

    async def start(self) -> None:
        self.processes.append(await RelayProcess.start(self._settings, self._cwd, command="huleedu els"))

    async def kill_and_replace(self, process: RelayProcess) -> None:
        process.kill()
        assert await process.exited() < 0
        await self.start()

    async def upload(self, numbers: range) -> None:
        """Tell of uploads, of each twice and in two partitions, so that two processes may have it at once."""
        for number in numbers:
            provisioned = event(CONTENT_PROVISIONED, content(number, self.batch))
            for turn in range(2):
                partition = (number + turn) % PARTITIONS
                await produce(self.kafka.bootstrap, CONTENT_PROVISIONED, provisioned, partition=partition)

    async def done(self, uploads: int) -> None:
        """Wait until ELS is done with so many uploads."""

        async def over() -> bool:
            assigned = await self._count("els_slots WHERE state = 'assigned' AND batch_id = :batch")
            return assigned + await self._count("els_contents WHERE batch_id = :batch") >= uploads

        await until(over)

    async def delivered(self) -> None:
        """Wait until every message is sent."""

        async def over() -> bool:
            return await self._count("outbox_queue") == 0

        await until(over)

    @asynccontextmanager
    async def relay_and_ras(self) -> AsyncIterator[httpx.AsyncClient]:
        """Run both within the block; gives one who may ask RAS."""
        relay = Settings(
            database_url=self._url,
            kafka=KafkaSettings(bootstrap_servers=self.kafka.bootstrap),
            redis=RedisSettings(url=self._redis_url, stream=True),
        )
        ras = ras_settings(
            self._url, kafka_bootstrap_servers=self.kafka.bootstrap, kafka_group=f"ras-{uuid4()}"
        )
        async with Relay(relay), Ras(ras) as service:
            url = f"http://127.0.0.1:{service.port}"
            async with httpx.AsyncClient(base_url=url, headers=CREDENTIALS) as client:
                yield client

    async def said(self, topic: str) -> list[dict[str, Any]]:
        """The events of the batch in a topic."""
        records = await self.kafka.read(topic)
        return [json.loads(each.value or b"") for each in records if each.key == self.batch.encode()]

    async def _count(self, rows: str) -> int:
        async with self.engine.connect() as connection:
            statement = text(f"SELECT count(*) FROM {rows}")
            return int(await connection.scalar(statement, {"batch": self.batch}) or 0)


@pytest.fixture
async def huleedu(
    huleedu_database: str, kafka: Topics, redis_url: str, tmp_path: Path
) -> AsyncIterator[HuleEdu]:
    for topic in TOPICS:
        await kafka.create_if_missing(topic, partitions=PARTITIONS)
    huleedu = HuleEdu(huleedu_database, kafka, redis_url, tmp_path)
    for _ in range(3):
        await huleedu.start()
    yield huleedu
    for process in huleedu.processes:
        process.kill()
        await process.exited()
    await huleedu.engine.dispose()


async def test_slots_are_assigned_once_whoever_is_killed(huleedu: HuleEdu, redis: Redis) -> None:
    batch = huleedu.batch
    registered = event(ESSAYS_REGISTERED, registration(batch, SLOTS, user_id=batch))
    await produce(huleedu.kafka.bootstrap, ESSAYS_REGISTERED, registered, registered, key=batch)
    victims = iter(tuple(huleedu.processes))
    for first in range(0, UPLOADS, AT_ONCE):
        await huleedu.upload(range(first, first + AT_ONCE))
        if first in (0, 20, 50):
            # In the midst of its work.
            await huleedu.done(first + 1)
            await huleedu.kill_and_replace(next(victims))
        await huleedu.done(first + AT_ONCE)
    async with huleedu.relay_and_ras() as client:
        status = await settled_status(client, batch)
        await huleedu.delivered()

    slots = await huleedu.said(SLOT_ASSIGNED)
    assert len({each["event_id"] for each in slots}) == SLOTS
    assigned = {(each["data"]["slot_index"], each["data"]["file_upload_id"]) for each in slots}
    assert Counter(slot for slot, _ in assigned) == dict.fromkeys(range(SLOTS), 1)
    uploads = {upload for _, upload in assigned}
    excess = await huleedu.said(EXCESS_CONTENT)
    refused = {each["data"]["file_upload_id"] for each in excess}
    assert len(uploads) == SLOTS
    assert len({each["event_id"] for each in excess}) == len(refused - uploads) == UPLOADS - SLOTS
    assert len({each["event_id"] for each in await huleedu.said(PROVISIONING_COMPLETED)}) == 1
    # Each upload is told once: of its slot, or that there was none.
    assert await redis.xlen(f"ws:{batch}:log") == UPLOADS
    assert {(each["slot_index"], each["file_upload_id"]) for each in status["essays"]} == assigned


async def settled_status(client: httpx.AsyncClient, batch: str) -> dict[str, Any]:
    """RAS's answer once every slot is filled."""
    answer: dict[str, Any] = {}

    async def ready() -> bool:
        answer.update((await client.get(f"/internal/v1/batches/{batch}/status")).json())
        return answer.get("overall_status") == "ready"

    await until(ready)
    return answer
