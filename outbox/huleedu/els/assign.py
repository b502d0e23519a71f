"""Which content gets which slot: the heart of ELS, in the caller's transaction.

Whoever changes anything of a batch locks its row first, so writers of a batch take turns: no slot is
given twice, and what is said of the batch is said in the order in which it happened. The row is there even
before the batch is registered, for content that comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from outbox.huleedu.els import store
from outbox.huleedu.els.publish import (
    NOTIFY_WITHIN,
    publish_essay_slot_assigned,
    publish_excess_content,
    publish_provisioning_completed,
)
from outbox.huleedu.els.store import Batch, Transaction
from outbox.huleedu.errors import Unacceptable
from outbox.huleedu.events import (
    UNKNOWN,
    BatchContentProvisioningCompletedV1,
    BatchEssaysRegistered,
    EssayContentProvisionedV1,
    EssaySlotAssignedV1,
    ExcessContentProvisionedV1,
)


@dataclass(frozen=True, slots=True)
class Assigned:
    """The content has this slot."""

    essay_id: str
    slot_index: int
    first: bool
    """It got it now; else it had it before, and nothing was said again."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The batch is not registered yet; the content gets its slot when it is."""


@dataclass(frozen=True, slots=True)
class Excess:
    """The batch has no slot left."""

    first: bool
    """That was said now; else before."""


SlotOutcome = Assigned | Waiting | Excess


async def assign_slot(
    session: Transaction, content: EssayContentProvisionedV1, *, notify_within: timedelta = NOTIFY_WITHIN
) -> SlotOutcome:
    """Gives the content the lowest free slot of its batch, and tells Kafka and the batch's user.

    The same upload, or the same text, gets the same slot and no second message.
    """
    batch = await store.lock_batch(session, content.entity_id)
    if batch.registered_at is None:
        await store.keep(session, content, "waiting")
        return Waiting()
    return await _assign(session, batch, content, notify_within)


async def register_batch(
    session: Transaction,
    registration: BatchEssaysRegistered,
    correlation_id: UUID,
    *,
    notify_within: timedelta = NOTIFY_WITHIN,
) -> bool:
    """Makes the batch's slots, and fills them with the content that waits; returns True if it was new.

    A batch that is registered already stays as it is, but can get a user that was missing. Raises
    `Unacceptable` if its registration now says something else.
    """
    batch = await store.lock_batch(session, registration.entity_id)
    if batch.registered_at is not None:
        await _register_again(session, batch, registration)
        return False
    batch = await store.add_slots(session, registration, correlation_id)
    for content in await store.take_waiting(session, batch.batch_id):
        await _assign(session, batch, content, notify_within)
    return True


async def _register_again(session: Transaction, batch: Batch, registration: BatchEssaysRegistered) -> None:
    if tuple(await store.essay_ids(session, batch.batch_id)) != registration.essay_ids:
        raise Unacceptable("the batch is registered already, with other essays")
    if registration.user_id in (None, batch.user_id):
        return
    if batch.user_id is not None:
        raise Unacceptable("the batch is registered already, with another user")
    await store.set_user(session, batch.batch_id, registration.user_id)


async def _assign(
    session: Transaction, batch: Batch, content: EssayContentProvisionedV1, notify_within: timedelta
) -> SlotOutcome:
    if had := await store.slot_of(session, content):
        return Assigned(had.essay_id, had.slot_index, first=False)
    taken = await store.take_lowest_free(session, content)
    if taken is None:
        return await _refuse(session, content)
    slot, was_last = taken
    event = EssaySlotAssignedV1(
        batch_id=batch.batch_id,
        essay_id=slot.essay_id,
        file_upload_id=content.file_upload_id,
        text_storage_id=content.text_storage_id,
        original_file_name=content.original_file_name or UNKNOWN,
        slot_index=slot.slot_index,
        correlation_id=content.correlation_id,
        timestamp=slot.assigned_at,
    )
    await publish_essay_slot_assigned(session, event, content.correlation_id, notify_within=notify_within)
    if was_last:
        await _complete(session, batch, slot.assigned_at)
    return Assigned(slot.essay_id, slot.slot_index, first=True)


async def _complete(session: Transaction, batch: Batch, completed_at: datetime) -> None:
    """Tells that every slot is filled. That happens once, because no slot is ever freed."""
    essays = await store.complete(session, batch.batch_id, completed_at)
    event = BatchContentProvisioningCompletedV1(
        batch_id=batch.batch_id,
        provisioned_count=len(essays),
        expected_count=len(essays),
        course_code=batch.course_code or UNKNOWN,
        user_id=batch.user_id,
        essays_for_processing=essays,
        correlation_id=batch.correlation_id,
        timestamp=completed_at,
    )
    await publish_provisioning_completed(session, event)


async def _refuse(session: Transaction, content: EssayContentProvisionedV1) -> Excess:
    """Tells that the batch has no slot left for this content, once."""
    refused_at = await store.keep(session, content, "excess")
    if refused_at is None:
        return Excess(first=False)
    event = ExcessContentProvisionedV1(
        batch_id=content.entity_id,
        original_file_name=content.original_file_name or UNKNOWN,
        text_storage_id=content.text_storage_id,
        file_upload_id=content.file_upload_id,
        correlation_id=content.correlation_id,
        timestamp=refused_at,
    )
    await publish_excess_content(session, event)
    return Excess(first=True)
