"""The way of an upload through the system, as the outbox tells it: each message that it led to, and when."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.exceptions import HTTPException

from outbox import Settings
from outbox.huleedu.schema import page_batches as batches
from outbox.huleedu.schema import page_files as files
from outbox.operate import DeliveryState, Trace, follow


class _Told(NamedTuple):
    """An upload, and the message that tells of it."""

    name: str | None
    message_id: UUID


async def way_of(engine: AsyncEngine, outbox: Settings, user: str, file_upload_id: UUID) -> dict[str, Any]:
    """Returns every message that the upload led to so far, in order, and the database's clock now.

    Raises a 404, a 403 for another's upload. What was pruned is not told.
    """
    async with engine.connect() as connection:
        upload = await _find(connection, user, file_upload_id)
        if outbox.database_schema:
            await connection.execution_options(schema_translate_map={None: outbox.database_schema})
        messages = await follow(connection, upload.message_id)
        now = await connection.scalar(select(func.clock_timestamp()))
    return {
        "file_upload_id": str(file_upload_id),
        "name": upload.name,
        "now": _time(now),
        "messages": [_message(each) for each in messages],
    }


async def _find(connection: AsyncConnection, user: str, file_upload_id: UUID) -> _Told:
    found = await connection.execute(
        select(batches.c.user_id, files.c.name, files.c.message_id)
        .join(batches, batches.c.batch_id == files.c.batch_id)
        .where(files.c.file_upload_id == file_upload_id)
    )
    row = found.one_or_none()
    if row is None:
        raise HTTPException(404, "Upload not found")
    if row.user_id != user:
        raise HTTPException(403, "It is not your upload")
    return _Told(row.name, row.message_id)


def _message(message: Trace) -> dict[str, Any]:
    return {
        "message_id": str(message.message_id),
        "type": message.type,
        "written_at": _time(message.written_at),
        "committed_at": _time(message.committed_at),
        "deliveries": [_delivery(each) for each in message.deliveries],
    }


def _delivery(delivery: DeliveryState) -> dict[str, Any]:
    return {
        "sink": delivery.sink,
        "destination": delivery.destination,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "settled_at": _time(delivery.settled_at),
        "partition": delivery.partition,
        "offset": delivery.partition_offset,
        "receivers": delivery.receivers,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
