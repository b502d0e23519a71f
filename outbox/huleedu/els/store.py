"""ELS's statements about batches and their slots, each in the caller's transaction.

Each is for any number of batches at once. Content without a slot is in `contents`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import CursorResult, TextClause, any_, bindparam, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.types import Text

from outbox.huleedu.els.board import Board, Slot
from outbox.huleedu.events import BatchEssaysRegistered, EssayContentProvisionedV1, EssayProcessingInputRefV1
from outbox.huleedu.schema import els_batches as batches
from outbox.huleedu.schema import els_slots as slots

Transaction = AsyncSession | AsyncConnection
"""What the caller has begun and will commit."""

Place = tuple[str, int]
"""A slot: its batch, and its index."""


class Batch(NamedTuple):
    """A batch whose row is locked."""

    batch_id: str
    user_id: str | None
    course_code: str | None
    correlation_id: UUID
    """Of its registration; before that, nobody asks."""
    registered_at: datetime | None
    """Null: content came first."""


_BATCH = [batches.c[name] for name in Batch._fields]

_MAKE = text(
    "INSERT INTO els_batches (batch_id) SELECT * FROM unnest(CAST(:names AS text[])) AS name ORDER BY name"
    " ON CONFLICT DO NOTHING"
)
_LOCK = (
    select(*_BATCH)
    .where(batches.c.batch_id == any_(bindparam("names", type_=ARRAY(Text))))
    .order_by(batches.c.batch_id)
    .with_for_update()
)

# Each part by an index of its own. Of the free ones: as many as may be taken and one, which tells the last.
_BOARD = text("""
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:batches AS text[]), CAST(:uploads AS text[]), CAST(:texts AS text[]))
            AS given (batch_id, file_upload_id, text_storage_id)
    ), wanted AS (
        SELECT batch_id, count(*) + 1 AS number FROM given GROUP BY batch_id
    )
    SELECT batch_id, slot_index, essay_id, els_slots.file_upload_id, els_slots.text_storage_id
    FROM given JOIN els_slots USING (batch_id, file_upload_id)
    UNION
    SELECT batch_id, slot_index, essay_id, els_slots.file_upload_id, els_slots.text_storage_id
    FROM given JOIN els_slots USING (batch_id, text_storage_id)
    UNION ALL
    SELECT free.* FROM wanted CROSS JOIN LATERAL (
        SELECT batch_id, slot_index, essay_id, file_upload_id, text_storage_id
        FROM els_slots
        WHERE els_slots.batch_id = wanted.batch_id AND state = 'free'
        ORDER BY slot_index
        LIMIT wanted.number
    ) AS free
""")

_FILL = text("""
    UPDATE els_slots SET
        state = 'assigned',
        file_upload_id = given.file_upload_id,
        text_storage_id = given.text_storage_id,
        original_file_name = given.name,
        assigned_at = clock_timestamp()
    FROM unnest(
        CAST(:batches AS text[]), CAST(:indexes AS integer[]),
        CAST(:uploads AS text[]), CAST(:texts AS text[]), CAST(:names AS text[])
    ) AS given (batch_id, slot_index, file_upload_id, text_storage_id, name)
    WHERE els_slots.batch_id = given.batch_id AND els_slots.slot_index = given.slot_index
    RETURNING els_slots.batch_id, els_slots.slot_index, els_slots.assigned_at
""")


async def lock_batches(session: Transaction, batch_ids: Iterable[str]) -> Mapping[str, Batch]:
    """Returns these batches, locked until the transaction ends; makes the rows of those that have none.

    Both in sorted order, rows before locks, so that two transactions never wait for each other.
    """
    names = {"names": list(set(batch_ids))}
    await session.execute(_MAKE, names)
    found = await session.execute(_LOCK, names)
    return {row.batch_id: Batch(*row) for row in found}


async def add_slots(
    session: Transaction, registrations: Sequence[tuple[BatchEssaysRegistered, UUID]]
) -> Mapping[str, Batch]:
    """Makes locked batches registered ones, with a free slot for each essay; returns them as they are then.

    With each registration comes its correlation id.
    """
    essays = [
        {"batch_id": each.entity_id, "slot_index": index, "essay_id": essay_id}
        for each, _ in registrations
        for index, essay_id in enumerate(each.essay_ids)
    ]
    await session.execute(_ADD_SLOTS, _columns(essays))
    said = [
        {
            "batch_id": each.entity_id,
            "user_id": each.user_id,
            "course_code": each.course_code,
            "correlation_id": str(correlation_id),
        }
        for each, correlation_id in registrations
    ]
    registered = await session.execute(_REGISTER, _columns(said))
    return {row.batch_id: Batch(*row) for row in registered}


_ADD_SLOTS = text(
    "INSERT INTO els_slots (batch_id, slot_index, essay_id) SELECT * FROM unnest("
    "CAST(:batch_id AS text[]), CAST(:slot_index AS integer[]), CAST(:essay_id AS text[]))"
)
_REGISTER = text("""
    UPDATE els_batches SET
        user_id = given.user_id,
        course_code = given.course_code,
        correlation_id = given.correlation_id,
        registered_at = clock_timestamp()
    FROM unnest(
        CAST(:batch_id AS text[]), CAST(:user_id AS text[]),
        CAST(:course_code AS text[]), CAST(:correlation_id AS uuid[])
    ) AS given (batch_id, user_id, course_code, correlation_id)
    WHERE els_batches.batch_id = given.batch_id
    RETURNING els_batches.batch_id, els_batches.user_id, els_batches.course_code,
        els_batches.correlation_id, els_batches.registered_at
""")


def _columns(rows: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


async def set_user(session: Transaction, batch_id: str, user_id: str) -> None:
    """Records whose batch it is."""
    await session.execute(update(batches).where(batches.c.batch_id == batch_id).values(user_id=user_id))


async def essay_ids(session: Transaction, batch_id: str) -> Sequence[str]:
    """Returns the essays of a batch, in the order of their slots."""
    found = await session.execute(
        select(slots.c.essay_id).where(slots.c.batch_id == batch_id).order_by(slots.c.slot_index)
    )
    return found.scalars().all()


async def board(session: Transaction, given: Sequence[EssayContentProvisionedV1]) -> Board:
    """Returns the slots that these contents of locked batches have or may get."""
    columns = {
        "batches": [each.entity_id for each in given],
        "uploads": [each.file_upload_id for each in given],
        "texts": [each.text_storage_id for each in given],
    }
    return Board(Slot(*row) for row in await session.execute(_BOARD, columns))


async def fill(
    session: Transaction, taken: Sequence[tuple[Slot, EssayContentProvisionedV1]]
) -> Mapping[Place, datetime]:
    """Records which content has which slot; returns since when."""
    columns = {
        "batches": [slot.batch_id for slot, _ in taken],
        "indexes": [slot.slot_index for slot, _ in taken],
        "uploads": [content.file_upload_id for _, content in taken],
        "texts": [content.text_storage_id for _, content in taken],
        "names": [content.original_file_name for _, content in taken],
    }
    filled = await session.execute(_FILL, columns)
    return {(row.batch_id, row.slot_index): row.assigned_at for row in filled}


async def complete(
    session: Transaction, completed: Mapping[str, datetime]
) -> Mapping[str, tuple[EssayProcessingInputRefV1, ...]]:
    """Records since when every slot of these batches is filled.

    Returns their essays, in the order of their slots.
    """
    await session.execute(_COMPLETE, {"names": list(completed), "moments": list(completed.values())})
    found = await session.execute(
        select(slots.c.batch_id, slots.c.essay_id, slots.c.text_storage_id)
        .where(slots.c.batch_id.in_(completed))
        .order_by(slots.c.batch_id, slots.c.slot_index)
    )
    essays: dict[str, list[EssayProcessingInputRefV1]] = defaultdict(list)
    for batch_id, essay_id, text_id in found:
        essays[batch_id].append(EssayProcessingInputRefV1(essay_id=essay_id, text_storage_id=text_id))
    return {batch_id: tuple(each) for batch_id, each in essays.items()}


_COMPLETE = text("""
    UPDATE els_batches SET completed_at = given.moment
    FROM unnest(CAST(:names AS text[]), CAST(:moments AS timestamptz[])) AS given (name, moment)
    WHERE batch_id = given.name
""")


async def forget_names(session: Transaction, older_than: timedelta, limit: int) -> int:
    """Forgets what files were called that came longer ago, at most so many; returns how many."""
    how = {"age": older_than, "most": limit}
    return await _changed(session, _FORGET_ASSIGNED, how) + await _changed(session, _FORGET_KEPT, how)


async def _changed(session: Transaction, statement: TextClause, values: Mapping[str, object]) -> int:
    result = await session.execute(statement.execution_options(preserve_rowcount=True), values)
    return cast("CursorResult[Any]", result).rowcount


_FORGET_ASSIGNED = text("""
    UPDATE els_slots SET original_file_name = NULL WHERE (batch_id, slot_index) IN (
        SELECT batch_id, slot_index FROM els_slots
        WHERE original_file_name IS NOT NULL AND assigned_at < clock_timestamp() - CAST(:age AS interval)
        LIMIT :most FOR UPDATE SKIP LOCKED
    )
""")
_FORGET_KEPT = text("""
    UPDATE els_contents SET event = event - 'original_file_name' WHERE id IN (
        SELECT id FROM els_contents
        WHERE event ->> 'original_file_name' IS NOT NULL
            AND received_at < clock_timestamp() - CAST(:age AS interval)
        LIMIT :most FOR UPDATE SKIP LOCKED
    )
""")
