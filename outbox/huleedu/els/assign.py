"""Which content gets which slot: the heart of ELS, in the caller's transaction.

Whoever changes anything of a batch locks its row first, so writers of a batch take turns: no slot is
given twice, and what is said of the batch is said in the order in which it happened. The row is there even
before the batch is registered, for content that comes first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from outbox.huleedu.els import contents, store
from outbox.huleedu.els.board import Board, Slot
from outbox.huleedu.els.contents import Duplicate, Upload
from outbox.huleedu.els.publish import NOTIFY_WITHIN, Publication, Saying
from outbox.huleedu.els.store import Batch, Place, Transaction
from outbox.huleedu.errors import Unacceptable
from outbox.huleedu.events import (
    UNKNOWN,
    BatchContentProvisioningCompletedV1,
    BatchEssaysRegistered,
    EssayContentProvisionedV1,
    EssayProcessingInputRefV1,
    EssaySlotAssignedV1,
    ExcessContentProvisionedV1,
)
from outbox.huleedu.tracing import continued, trace


@dataclass(frozen=True, slots=True)
class Assigned:
    """The content has this slot."""

    essay_id: str
    slot_index: int
    first: bool
    """It got it now; else it had it before, and nothing was said again."""
    duplicate_of: str | None = None
    """The upload that got it, where this one has the same text; the user is told once which slot that is."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The batch is not registered yet; the content gets its slot when it is."""


@dataclass(frozen=True, slots=True)
class Excess:
    """The batch has no slot left."""

    first: bool
    """That was said now; else before."""


SlotOutcome = Assigned | Waiting | Excess


@dataclass(frozen=True, slots=True)
class Given:
    """Content that has come, and the trace that it came with."""

    content: EssayContentProvisionedV1
    trace: Mapping[str, str] = field(default_factory=trace)


@dataclass(frozen=True, slots=True)
class Registration:
    """That a batch was registered, and the trace that this came with."""

    data: BatchEssaysRegistered
    correlation_id: UUID
    trace: Mapping[str, str] = field(default_factory=trace)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of content, and what of it is told once it is committed."""

    outcome: SlotOutcome
    published: Publication | None = None


async def assign_slot(
    session: Transaction, content: EssayContentProvisionedV1, *, notify_within: timedelta = NOTIFY_WITHIN
) -> SlotOutcome:
    """Gives the content the lowest free slot of its batch, and tells Kafka and the batch's user.

    The same upload, or the same text, gets the same slot and no second event. The user of another upload with
    the same text is told which slot that is, once.
    """
    (done,) = await assign_slots(session, [Given(content)], notify_within=notify_within)
    return done.outcome


async def assign_slots(
    session: Transaction, given: Sequence[Given], *, notify_within: timedelta = NOTIFY_WITHIN
) -> Sequence[Done]:
    """Does for each content in turn what `assign_slot` does, in as many statements as for one."""
    batches = await store.lock_batches(session, (each.content.entity_id for each in given))
    registered = [each for each in given if batches[each.content.entity_id].registered_at]
    early = [each.content for each in given if not batches[each.content.entity_id].registered_at]
    if early:
        await contents.keep(session, early, "waiting")
    done = iter(await _assign(session, batches, registered, notify_within))
    return [
        next(done) if batches[each.content.entity_id].registered_at else Done(Waiting()) for each in given
    ]


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
    registrations = [Registration(registration, correlation_id)]
    new, _ = await register_batches(session, registrations, notify_within=notify_within)
    return bool(new)


async def register_batches(
    session: Transaction, registrations: Sequence[Registration], *, notify_within: timedelta = NOTIFY_WITHIN
) -> tuple[Collection[str], Sequence[Done]]:
    """Does for each batch what `register_batch` does, one registration of each.

    Returns the batches that were new, and what became of the content that waited for them.
    """
    of_batch = {each.data.entity_id: each for each in registrations}
    batches = await store.lock_batches(session, of_batch)
    new = [each for each in of_batch.values() if batches[each.data.entity_id].registered_at is None]
    names = {each.data.entity_id for each in new}
    for batch_id in of_batch.keys() - names:
        await _register_again(session, batches[batch_id], of_batch[batch_id].data)
    if not new:
        return names, []
    made = await store.add_slots(session, [(each.data, each.correlation_id) for each in new])
    waited = await contents.take_waiting(session, names)
    given = [Given(content, of_batch[content.entity_id].trace) for content in waited]
    return names, await _assign(session, made, given, notify_within)


async def _register_again(session: Transaction, batch: Batch, registration: BatchEssaysRegistered) -> None:
    if tuple(await store.essay_ids(session, batch.batch_id)) != registration.essay_ids:
        raise Unacceptable("the batch is registered already, with other essays")
    if registration.user_id in (None, batch.user_id):
        return
    if batch.user_id is not None:
        raise Unacceptable("the batch is registered already, with another user")
    await store.set_user(session, batch.batch_id, registration.user_id)


async def _assign(
    session: Transaction, batches: Mapping[str, Batch], given: Sequence[Given], notify_within: timedelta
) -> Sequence[Done]:
    """Gives slots to contents of registered batches whose rows are locked, and writes what is to be told."""
    if not given:
        return []
    board = await store.board(session, [each.content for each in given])
    turns = [_turn(board, each) for each in given]
    recorded = await _record(session, turns)
    saying = Saying(notify_within)
    done = [_tell(saying, batches[turn.content.entity_id], turn, recorded) for turn in turns]
    await saying.write(session)
    return done


@dataclass(frozen=True, slots=True)
class _Turn:
    """What is decided of one content."""

    content: EssayContentProvisionedV1
    trace: Mapping[str, str]
    slot: Slot | None
    """None: no slot is left."""
    first: bool = False
    """It gets the slot now."""
    last: bool = False
    """The slot was the last free one."""

    @property
    def duplicate_of(self) -> str | None:
        """The upload that has the slot, where it is another one."""
        upload = self.slot.file_upload_id if self.slot else None
        return None if upload == self.content.file_upload_id else upload


def _turn(board: Board, given: Given) -> _Turn:
    if had := board.slot_of(given.content):
        return _Turn(given.content, given.trace, had)
    slot, last = board.take(given.content) or (None, False)
    return _Turn(given.content, given.trace, slot, slot is not None, last)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """When what was decided was recorded; what is not in here was so before."""

    filled: Mapping[Place, datetime]
    refused: dict[Upload, datetime]
    duplicates: dict[Upload, Duplicate]
    completed: Mapping[str, tuple[EssayProcessingInputRefV1, ...]]


async def _record(session: Transaction, turns: Sequence[_Turn]) -> _Recorded:
    taken = [(turn.slot, turn.content) for turn in turns if turn.slot and turn.first]
    refused = [turn.content for turn in turns if turn.slot is None]
    duplicates = [(turn.slot, turn.content) for turn in turns if turn.slot and turn.duplicate_of]
    filled = await store.fill(session, taken) if taken else {}
    full = {turn.slot.batch_id: filled[turn.slot[:2]] for turn in turns if turn.slot and turn.last}
    return _Recorded(
        filled,
        await contents.keep(session, refused, "excess") if refused else {},
        await contents.keep_duplicates(session, duplicates) if duplicates else {},
        await store.complete(session, full) if full else {},
    )


def _tell(saying: Saying, batch: Batch, turn: _Turn, recorded: _Recorded) -> Done:
    with continued(turn.trace):
        if turn.slot is None:
            return _refuse(saying, batch, turn.content, recorded)
        outcome = Assigned(turn.slot.essay_id, turn.slot.slot_index, turn.first, turn.duplicate_of)
        if not turn.first:
            return Done(outcome, _tell_duplicate(saying, batch, turn.content, turn.slot, recorded))
        moment = recorded.filled[turn.slot[:2]]
        published = saying.assigned(
            _event(turn.content, turn.slot, moment), batch.user_id, turn.content.correlation_id, moment
        )
        if turn.last:
            _complete(saying, batch, recorded.completed[batch.batch_id], moment)
        return Done(outcome, published)


def _tell_duplicate(
    saying: Saying, batch: Batch, content: EssayContentProvisionedV1, slot: Slot, recorded: _Recorded
) -> Publication | None:
    """Tells which slot has the text of this upload, if another upload got it there, once."""
    found = recorded.duplicates.pop((content.entity_id, content.file_upload_id), None)
    if not (found and slot.file_upload_id):
        return None
    event = _event(content, slot, found.assigned_at)
    return saying.duplicate(event, slot.file_upload_id, batch.user_id, found.told_at)


def _event(content: EssayContentProvisionedV1, slot: Slot, moment: datetime) -> EssaySlotAssignedV1:
    return EssaySlotAssignedV1(
        batch_id=slot.batch_id,
        essay_id=slot.essay_id,
        file_upload_id=content.file_upload_id,
        text_storage_id=content.text_storage_id,
        original_file_name=content.original_file_name or UNKNOWN,
        slot_index=slot.slot_index,
        correlation_id=content.correlation_id,
        timestamp=moment,
    )


def _complete(
    saying: Saying, batch: Batch, essays: tuple[EssayProcessingInputRefV1, ...], moment: datetime
) -> None:
    """Tells that every slot is filled. That happens once, because no slot is ever freed."""
    saying.completed(
        BatchContentProvisioningCompletedV1(
            batch_id=batch.batch_id,
            provisioned_count=len(essays),
            expected_count=len(essays),
            course_code=batch.course_code or UNKNOWN,
            user_id=batch.user_id,
            essays_for_processing=essays,
            correlation_id=batch.correlation_id,
            timestamp=moment,
        )
    )


def _refuse(saying: Saying, batch: Batch, content: EssayContentProvisionedV1, recorded: _Recorded) -> Done:
    """Tells that the batch has no slot left for this content, once."""
    refused_at = recorded.refused.pop((content.entity_id, content.file_upload_id), None)
    if refused_at is None:
        return Done(Excess(first=False))
    published = saying.excess(
        ExcessContentProvisionedV1(
            batch_id=content.entity_id,
            original_file_name=content.original_file_name or UNKNOWN,
            text_storage_id=content.text_storage_id,
            file_upload_id=content.file_upload_id,
            correlation_id=content.correlation_id,
            timestamp=refused_at,
        ),
        batch.user_id,
    )
    return Done(Excess(first=True), published)
