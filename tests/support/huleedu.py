"""What happens in HuleEdu, as events: batches, uploads, results. And what the outbox then holds."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from aiokafka import ConsumerRecord
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from outbox.huleedu.events import BatchEssaysRegistered, EssayContentProvisionedV1, EventEnvelope
from outbox.huleedu.events.fields import Model
from outbox.huleedu.ras import RasSettings

API_KEY = "a key that only services know"
CREDENTIALS = {"X-Internal-API-Key": API_KEY, "X-Service-ID": "api-gateway-service"}
"""Headers of a service that may ask RAS."""


def ras_settings(url: str, **changed: Any) -> RasSettings:
    """RAS on a test's database."""
    values = {
        "database_url": url,
        "kafka_bootstrap_servers": "127.0.0.1:1",
        "internal_api_key": API_KEY,
        "allowed_service_ids": "api-gateway-service, web-page",
        "port": 0,
    }
    return RasSettings.model_validate({**values, **changed})


def engine_on(url: str) -> AsyncEngine:
    """An engine on a test's database."""
    return create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=20)


def registration(
    batch_id: str = "batch-1", essays: int = 3, user_id: str | None = "teacher-1", **changed: Any
) -> BatchEssaysRegistered:
    """A batch with essays `<batch>/essay-0` and so on."""
    values = {
        "entity_id": batch_id,
        "expected_essay_count": essays,
        "essay_ids": essay_ids(batch_id, essays),
        "user_id": user_id,
        "course_code": "ENG5",
    }
    return BatchEssaysRegistered.model_validate({**values, **changed})


def essay_ids(batch_id: str, essays: int) -> list[str]:
    """The essays of a batch, in the order of their slots."""
    return [f"{batch_id}/essay-{number}" for number in range(essays)]


def content(number: int = 0, batch_id: str = "batch-1", **changed: Any) -> EssayContentProvisionedV1:
    """An upload to a batch."""
    values = {
        "entity_id": batch_id,
        "file_upload_id": f"upload-{number}",
        "original_file_name": f"essay {number}.txt",
        "raw_file_storage_id": f"raw-{number}",
        "text_storage_id": f"text-{number}",
        "file_size_bytes": 1_000,
        "correlation_id": uuid4(),
        "timestamp": datetime.now(UTC),
    }
    return EssayContentProvisionedV1.model_validate({**values, **changed})


def event(topic: str, data: Model | Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """An event of another service, as JSON would have it."""
    envelope = EventEnvelope[Model](
        event_id=uuid4(),
        event_type=topic,
        event_timestamp=datetime.now(UTC),
        source_service="test",
        correlation_id=uuid4(),
        data=Model(),
    )
    body = data.model_dump(mode="json") if isinstance(data, Model) else data
    return {**envelope.model_dump(mode="json"), "data": body, **changed}


class Written:
    """One row of the outbox."""

    def __init__(self, row: Any) -> None:
        self.message_id = str(row.message_id)
        self.type: str = row.type
        self.sink: str = row.sink
        self.destination: str = row.destination
        self.key: str | None = row.key
        self.headers: dict[str, str] = row.headers
        self.body: dict[str, Any] = json.loads(row.payload)
        self.lifetime = None if row.expires_at is None else (row.expires_at - row.created_at).total_seconds()


async def written(database: AsyncEngine | AsyncConnection, destination: str = "%") -> list[Written]:
    """What the outbox holds for destinations like this, in order."""
    statement = text("SELECT * FROM outbox WHERE destination LIKE :destination ORDER BY id")
    if isinstance(database, AsyncConnection):
        rows = await database.execute(statement, {"destination": destination})
    else:
        async with database.connect() as connection:
            rows = await connection.execute(statement, {"destination": destination})
    return [Written(row) for row in rows]


def record(topic: str, value: Mapping[str, Any] | bytes | None, offset: int = 0) -> ConsumerRecord:
    """An event as it comes from Kafka."""
    body = json.dumps(value).encode() if isinstance(value, Mapping) else value
    return ConsumerRecord(topic, 0, offset, int(time.time() * 1_000), 0, b"key", body, None, 3, 0, ())
