"""ELS's few statements, each in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import and_, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from outbox.huleedu.events import BatchEssaysRegistered, EssayContentProvisionedV1, EssayProcessingInputRefV1
from outbox.huleedu.schema import els_batches as batches
from outbox.huleedu.schema import els_contents as contents
from outbox.huleedu.schema import els_slots as slots

Transaction = AsyncSession | AsyncConnection
"""What the caller has begun and will commit."""


class Batch(NamedTuple):
    """A batch whose row is locked."""

    batch_id: str
    user_id: str | None
    course_code: str | None
    correlation_id: UUID
    """Of its registration; before that, nobody asks."""
    registered_at: datetime | None
    """Null: content came first."""


class Slot(NamedTuple):
    """A slot that has content."""

    essay_id: str
    slot_index: int
    assigned_at: datetime


_BATCH = [batches.c[name] for name in Batch._fields]
_SLOT = [slots.c[name] for name in Slot._fields]


async def lock_batch(session: Transaction, batch_id: str) -> Batch:
    """Returns the batch, locked until the transaction ends; makes its row if it is not there."""
    locked = select(*_BATCH).where(batches.c.batch_id == batch_id).with_for_update()
    found = (await session.execute(locked)).one_or_none()
    if found is None:
        await session.execute(insert(batches).on_conflict_do_nothing(), {"batch_id": batch_id})
        found = (await session.execute(locked)).one()
    return Batch(*found)


async def add_slots(session: Transaction, registration: BatchEssaysRegistered, correlation_id: UUID) -> Batch:
    """Makes a locked batch a registered one, with a free slot for each essay; returns it as it is then."""
    batch_id = registration.entity_id
    essays = [
        {"batch_id": batch_id, "slot_index": index, "essay_id": essay_id}
        for index, essay_id in enumerate(registration.essay_ids)
    ]
    await session.execute(insert(slots), essays)
    registered = await session.execute(
        update(batches)
        .where(batches.c.batch_id == batch_id)
        .values(
            user_id=registration.user_id,
            course_code=registration.course_code,
            correlation_id=correlation_id,
            registered_at=func.clock_timestamp(),
        )
        .returning(*_BATCH)
    )
    return Batch(*registered.one())


async def set_user(session: Transaction, batch_id: str, user_id: str) -> None:
    """Records whose batch it is."""
    await session.execute(update(batches).where(batches.c.batch_id == batch_id).values(user_id=user_id))


async def essay_ids(session: Transaction, batch_id: str) -> Sequence[str]:
    """Returns the essays of a batch, in the order of their slots."""
    found = await session.execute(
        select(slots.c.essay_id).where(slots.c.batch_id == batch_id).order_by(slots.c.slot_index)
    )
    return found.scalars().all()


async def slot_of(session: Transaction, content: EssayContentProvisionedV1) -> Slot | None:
    """Returns the slot that this upload has, else one that this text has; None if neither has one."""
    same_upload = slots.c.file_upload_id == content.file_upload_id
    same_text = slots.c.text_storage_id == content.text_storage_id
    found = await session.execute(
        select(*_SLOT)
        .where(slots.c.batch_id == content.entity_id, or_(same_upload, same_text))
        .order_by(case((same_upload, 0), else_=1))
        .limit(1)
    )
    slot = found.one_or_none()
    return None if slot is None else Slot(*slot)


async def take_lowest_free(
    session: Transaction, content: EssayContentProvisionedV1
) -> tuple[Slot, bool] | None:
    """Gives the content the lowest free slot of its locked batch; None if there was none.

    Returns the slot, and True if it was the last free one.
    """
    free = and_(slots.c.batch_id == content.entity_id, slots.c.state == "free")
    lowest = select(func.min(slots.c.slot_index)).where(free).scalar_subquery()
    # RETURNING sees the table as it was before the update.
    were_free = select(func.count()).where(free).scalar_subquery()
    taken = await session.execute(
        update(slots)
        .where(slots.c.batch_id == content.entity_id, slots.c.slot_index == lowest)
        .values(
            state="assigned",
            file_upload_id=content.file_upload_id,
            text_storage_id=content.text_storage_id,
            original_file_name=content.original_file_name,
            assigned_at=func.clock_timestamp(),
        )
        .returning(*_SLOT, were_free)
    )
    row = taken.one_or_none()
    return None if row is None else (Slot(*row[:-1]), row[-1] == 1)


async def complete(
    session: Transaction, batch_id: str, completed_at: datetime
) -> tuple[EssayProcessingInputRefV1, ...]:
    """Records that every slot of the batch is filled; returns the essays, in the order of their slots."""
    await session.execute(
        update(batches).where(batches.c.batch_id == batch_id).values(completed_at=completed_at)
    )
    found = await session.execute(
        select(slots.c.essay_id, slots.c.text_storage_id)
        .where(slots.c.batch_id == batch_id)
        .order_by(slots.c.slot_index)
    )
    return tuple(EssayProcessingInputRefV1(essay_id=each, text_storage_id=text) for each, text in found)


async def keep(session: Transaction, content: EssayContentProvisionedV1, state: str) -> datetime | None:
    """Keeps content without a slot, as `waiting` or `excess`; returns when, None if it was kept before."""
    kept = await session.execute(
        insert(contents)
        .values(
            batch_id=content.entity_id,
            file_upload_id=content.file_upload_id,
            text_storage_id=content.text_storage_id,
            state=state,
            event=content.model_dump(mode="json"),
        )
        .on_conflict_do_nothing()
        .returning(contents.c.received_at)
    )
    moment: datetime | None = kept.scalar_one_or_none()
    return moment


async def take_waiting(session: Transaction, batch_id: str) -> list[EssayContentProvisionedV1]:
    """Returns the content that waits for a batch, in the order in which it came; it waits no longer."""
    taken = await session.execute(
        contents.delete()
        .where(contents.c.batch_id == batch_id, contents.c.state == "waiting")
        .returning(contents.c.id, contents.c.event)
    )
    return [EssayContentProvisionedV1.model_validate(event) for _, event in sorted(map(tuple, taken))]
