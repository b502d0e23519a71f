"""The small Batch service: a teacher's batches, each registered for all services in the same transaction."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Row, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.exceptions import HTTPException

from outbox import new_id, write
from outbox.huleedu.events import ESSAYS_REGISTERED, BatchEssaysRegistered, EventEnvelope
from outbox.huleedu.messages import kafka_message
from outbox.huleedu.page.settings import PageSettings
from outbox.huleedu.schema import page_batches as batches
from outbox.huleedu.schema import page_files as files
from outbox.huleedu.tracing import trace

SERVICE = "batch-orchestrator-service"
"""Whose part this plays, and who it says it is on Kafka."""

_Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100, pattern=r"^[^\x00-\x1f]*$")]


class NewBatch(BaseModel):
    """What a teacher says of a batch."""

    model_config = ConfigDict(extra="forbid")

    slots: int = Field(ge=1)
    title: _Line | None = None
    course_code: _Line | None = None


class Batches:
    """The batches of all users."""

    def __init__(self, settings: PageSettings, engine: AsyncEngine) -> None:
        self._slots = settings.slots
        self._batches_per_user = settings.batches_per_user
        self._engine = engine

    async def create(self, user: str, new: NewBatch, correlation_id: UUID) -> dict[str, Any]:
        """Makes a batch with an essay for each slot, and tells every service of it."""
        if new.slots > self._slots:
            raise HTTPException(422, f"slots: a batch has at most {self._slots}")
        batch_id = str(uuid4())
        async with self._engine.begin() as connection:
            await self._refuse_too_many(connection, user)
            added = await connection.execute(
                insert(batches)
                .values(
                    batch_id=batch_id,
                    user_id=user,
                    title=new.title or None,
                    course_code=new.course_code or None,
                    slots=new.slots,
                )
                .returning(*batches.c)
            )
            batch = added.one()
            await write(connection, kafka_message(batch_id, _registered(batch, correlation_id)))
        return _as_json(batch, files=0)

    async def of(self, user: str) -> list[dict[str, Any]]:
        """Returns a user's batches, the newest first."""
        count = select(func.count()).where(files.c.batch_id == batches.c.batch_id).scalar_subquery()
        statement = (
            select(batches, count.label("files"))
            .where(batches.c.user_id == user)
            .order_by(batches.c.created_at.desc())
        )
        async with self._engine.connect() as connection:
            return [_as_json(row, row.files) for row in await connection.execute(statement)]

    async def _refuse_too_many(self, connection: AsyncConnection, user: str) -> None:
        # Two at once would both count what was there before.
        await connection.execute(
            text(
                "SELECT pg_advisory_xact_lock(hashtextextended(:user, hashtextextended('page_batches', 0)))"
            ),
            {"user": user},
        )
        count = select(func.count()).select_from(batches).where(batches.c.user_id == user)
        if (await connection.scalar(count) or 0) >= self._batches_per_user:
            raise HTTPException(409, f"You have {self._batches_per_user} batches, and no more are kept")


def _registered(batch: Row[Any], correlation_id: UUID) -> EventEnvelope[BatchEssaysRegistered]:
    return EventEnvelope[BatchEssaysRegistered](
        event_id=new_id(),
        event_type=ESSAYS_REGISTERED,
        event_timestamp=batch.created_at,
        source_service=SERVICE,
        correlation_id=correlation_id,
        data=BatchEssaysRegistered(
            entity_id=batch.batch_id,
            expected_essay_count=batch.slots,
            essay_ids=tuple(str(uuid4()) for _ in range(batch.slots)),
            user_id=batch.user_id,
            course_code=batch.course_code,
        ),
        metadata=trace() or None,
    )


def _as_json(batch: Row[Any], files: int) -> dict[str, Any]:
    return {
        "batch_id": batch.batch_id,
        "title": batch.title,
        "course_code": batch.course_code,
        "slots": batch.slots,
        "files": files,
        "created_at": batch.created_at.isoformat(),
    }
