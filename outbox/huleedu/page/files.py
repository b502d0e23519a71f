"""The small File service: stores an uploaded file and its text, and tells of it in the same transaction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.exceptions import HTTPException

from outbox import new_id, write
from outbox.huleedu.events import CONTENT_PROVISIONED, EssayContentProvisionedV1, EventEnvelope
from outbox.huleedu.messages import kafka_message
from outbox.huleedu.page.settings import PageSettings
from outbox.huleedu.page.text import NotText, text_of
from outbox.huleedu.schema import page_batches as batches
from outbox.huleedu.schema import page_files as files
from outbox.huleedu.tracing import trace

SERVICE = "file-service"
"""Whose part this plays, and who it says it is on Kafka."""


class Stored(NamedTuple):
    """A stored file's row, without what was uploaded."""

    file_upload_id: UUID
    batch_id: str
    name: str | None
    bytes: int
    md5: str
    message_id: UUID
    correlation_id: UUID
    uploaded_at: datetime

    def as_json(self) -> dict[str, Any]:
        """Returns what the page is told of the file."""
        return {
            "file_upload_id": str(self.file_upload_id),
            "name": self.name,
            "bytes": self.bytes,
            "uploaded_at": self.uploaded_at.isoformat(),
        }


_SIZE = func.octet_length(files.c.content)
_STORED = [_SIZE if name == "bytes" else files.c[name] for name in Stored._fields]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way in."""

    file_upload_id: UUID
    """Given by the browser, so that it can send a file again of which it does not know whether it came."""
    name: str | None
    content: bytes
    correlation_id: UUID
    """Of all that follows from it."""

    @property
    def md5(self) -> str:
        """The content's MD5 digest, by which HuleEdu's events tell one file from another."""
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


class Files:
    """The files of all batches."""

    def __init__(self, settings: PageSettings, engine: AsyncEngine) -> None:
        self._files_per_batch = settings.files_per_batch
        self._engine = engine

    async def store(self, user: str, batch_id: str, upload: Upload) -> tuple[dict[str, Any], bool]:
        """Stores a file of one of the user's batches; returns it, and True if it is new.

        The same upload again is not.
        """
        try:
            text = text_of(upload.content)
        except NotText as error:
            raise HTTPException(415, str(error)) from None
        async with self._engine.begin() as connection:
            await _find_batch(connection, user, batch_id, lock=True)
            if stored := await _stored_before(connection, batch_id, upload):
                return stored.as_json(), False
            await self._refuse_too_many(connection, batch_id)
            return (await _add(connection, batch_id, upload, text)).as_json(), True

    async def of(self, user: str, batch_id: str) -> list[dict[str, Any]]:
        """Returns the files of one of the user's batches, in the order in which they came."""
        async with self._engine.connect() as connection:
            await _find_batch(connection, user, batch_id)
            found = select(*_STORED).where(files.c.batch_id == batch_id).order_by(files.c.uploaded_at)
            return [Stored(*row).as_json() for row in await connection.execute(found)]

    async def _refuse_too_many(self, connection: AsyncConnection, batch_id: str) -> None:
        count = select(func.count()).select_from(files).where(files.c.batch_id == batch_id)
        if (await connection.scalar(count) or 0) >= self._files_per_batch:
            raise HTTPException(409, f"The batch has {self._files_per_batch} files, and no more are taken")


async def _find_batch(connection: AsyncConnection, user: str, batch_id: str, *, lock: bool = False) -> None:
    """Raises a 404 where there is no such batch, a 403 where it is another's. Who adds to one locks it."""
    owner = select(batches.c.user_id).where(batches.c.batch_id == batch_id)
    found = await connection.scalar(owner.with_for_update() if lock else owner)
    if found is None:
        raise HTTPException(404, "Batch not found")
    if found != user:
        raise HTTPException(403, "It is not your batch")


async def _stored_before(connection: AsyncConnection, batch_id: str, upload: Upload) -> Stored | None:
    found = await connection.execute(select(*_STORED).where(files.c.file_upload_id == upload.file_upload_id))
    row = found.one_or_none()
    if row is None:
        return None
    stored = Stored(*row)
    if (stored.batch_id, stored.md5) != (batch_id, upload.md5):
        raise HTTPException(409, "Another file was uploaded under this upload_id")
    return stored


async def _add(connection: AsyncConnection, batch_id: str, upload: Upload, text: str) -> Stored:
    added = await connection.execute(
        insert(files)
        .values(
            file_upload_id=upload.file_upload_id,
            batch_id=batch_id,
            name=upload.name,
            content=upload.content,
            md5=upload.md5,
            text=text,
            message_id=new_id(),
            correlation_id=upload.correlation_id,
        )
        .returning(*_STORED)
    )
    stored = Stored(*added.one())
    await write(connection, kafka_message(batch_id, _provisioned(stored)))
    return stored


def _provisioned(stored: Stored) -> EventEnvelope[EssayContentProvisionedV1]:
    return EventEnvelope[EssayContentProvisionedV1](
        event_id=stored.message_id,
        event_type=CONTENT_PROVISIONED,
        event_timestamp=stored.uploaded_at,
        source_service=SERVICE,
        correlation_id=stored.correlation_id,
        data=EssayContentProvisionedV1(
            entity_id=stored.batch_id,
            file_upload_id=str(stored.file_upload_id),
            original_file_name=stored.name,
            raw_file_storage_id=f"file-{stored.file_upload_id}",
            text_storage_id=f"text-{stored.file_upload_id}",
            file_size_bytes=stored.bytes,
            content_md5_hash=stored.md5,
            correlation_id=stored.correlation_id,
            timestamp=stored.uploaded_at,
        ),
        metadata=trace() or None,
    )
