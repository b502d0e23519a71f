"""The way of an upload through the system, as the outbox knows it: each message that it led to, and when.

What an upload leads to carries its correlation id. That is in no index; but it is written after the
upload, so a walk over a bounded number of rows from there finds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import case, func, literal_column, null, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.exceptions import HTTPException

from outbox import Settings
from outbox.huleedu.schema import page_batches as batches
from outbox.huleedu.schema import page_files as files
from outbox.operate import DeliveryState, Selection, show
from outbox.schema import table

_ROWS = 20_000
"""How many rows after the upload's own are looked through."""

_written = table("outbox").alias("written")

_COMMITTED = case(
    (
        func.current_setting("track_commit_timestamp") == "on",
        func.pg_xact_commit_timestamp(literal_column("written.xmin")),
    ),
    else_=null(),
)


class _Upload(NamedTuple):
    name: str | None
    message_id: UUID
    correlation_id: UUID


async def way_of(engine: AsyncEngine, outbox: Settings, user: str, file_upload_id: UUID) -> dict[str, Any]:
    """Every message so far, in order, and the database's clock now.

    Raises a 404, a 403 for another's upload. What was pruned is not told.
    """
    async with engine.connect() as connection:
        upload = await _find(connection, user, file_upload_id)
        if outbox.database_schema:
            await connection.execution_options(schema_translate_map={None: outbox.database_schema})
        commits = await _commits(connection, upload)
        found = await show(connection, Selection(message_ids=commits)) if commits else []
        now = await connection.scalar(select(func.clock_timestamp()))
    by_message: dict[UUID, list[DeliveryState]] = {}
    for details in found:
        by_message.setdefault(details.delivery.message_id, []).append(details.delivery)
    return {
        "file_upload_id": str(file_upload_id),
        "name": upload.name,
        "now": _time(now),
        "messages": [_message(each, commits[each[0].message_id]) for each in by_message.values()],
    }


async def _find(connection: AsyncConnection, user: str, file_upload_id: UUID) -> _Upload:
    found = await connection.execute(
        select(batches.c.user_id, files.c.name, files.c.message_id, files.c.correlation_id)
        .join(batches, batches.c.batch_id == files.c.batch_id)
        .where(files.c.file_upload_id == file_upload_id)
    )
    row = found.one_or_none()
    if row is None:
        raise HTTPException(404, "Upload not found")
    if row.user_id != user:
        raise HTTPException(403, "It is not your upload")
    return _Upload(*row[1:])


async def _commits(connection: AsyncConnection, upload: _Upload) -> Mapping[UUID, datetime | None]:
    """The messages, and when each was committed, if the database keeps that (`track_commit_timestamp`)."""
    own = table("outbox")
    first = select(func.min(own.c.id)).where(own.c.message_id == upload.message_id).scalar_subquery()
    rows = await connection.execute(
        select(_written.c.message_id, _COMMITTED.label("committed_at")).where(
            _written.c.id.between(first, first + _ROWS),
            _written.c.headers["correlation_id"].astext == str(upload.correlation_id),
        )
    )
    return {row.message_id: row.committed_at for row in rows}


def _message(deliveries: Sequence[DeliveryState], committed_at: datetime | None) -> dict[str, Any]:
    first = deliveries[0]
    return {
        "message_id": str(first.message_id),
        "type": first.type,
        "written_at": _time(first.created_at),
        "committed_at": _time(committed_at),
        "deliveries": [
            {
                "sink": each.sink,
                "destination": each.destination,
                "state": each.state,
                "attempts": each.attempts,
                "settled_at": _time(each.settled_at),
                "partition": each.partition,
                "offset": each.partition_offset,
                "receivers": each.receivers,
            }
            for each in deliveries
        ],
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
