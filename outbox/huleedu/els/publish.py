"""What ELS says, written to the outbox in the caller's transaction.

`publish_essay_slot_assigned` is HuleEdu's dual publish: the event for Kafka and the notification for the
browser are two deliveries of one message, with one `message_id`. Content without a slot is told so too.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import func, select

from outbox import Message, new_id, write
from outbox.huleedu.channels import channel_of
from outbox.huleedu.els.metrics import WITHOUT_USER
from outbox.huleedu.els.store import Transaction
from outbox.huleedu.events import (
    EXCESS_CONTENT,
    PROVISIONING_COMPLETED,
    SLOT_ASSIGNED,
    UNKNOWN,
    BatchContentProvisioningCompletedV1,
    DuplicateAssignmentData,
    EssaySlotAssignedV1,
    ExcessContentProvisionedV1,
    ExcessData,
    ExcessNotification,
    SlotAssignedNotification,
    SlotAssignmentData,
    envelope_of,
)
from outbox.huleedu.messages import kafka_message
from outbox.huleedu.schema import els_batches
from outbox.huleedu.tracing import trace

_log = structlog.get_logger(__name__)

SOURCE_SERVICE = "essay-lifecycle-service"

NOTIFY_WITHIN = timedelta(seconds=60)
"""A notification that is older is worthless: by then the browser has asked."""

ElsEvent = EssaySlotAssignedV1 | BatchContentProvisioningCompletedV1 | ExcessContentProvisionedV1

Told = SlotAssignedNotification | ExcessNotification
"""What a browser hears."""


class Publication(NamedTuple):
    """That what became of an upload was written to the outbox: ids, and no names."""

    batch_id: str
    essay_id: str | None
    """None: no slot was left."""
    file_upload_id: str
    channel: str | None
    """The Redis channel of the batch's user; None: it has none."""
    message_id: UUID


class Saying:
    """What a transaction says, in order, until it is written."""

    def __init__(self, notify_within: timedelta) -> None:
        self._notify_within = notify_within
        self._messages: list[Message] = []

    def assigned(
        self, event: EssaySlotAssignedV1, user_id: str | None, correlation_id: UUID, now: datetime
    ) -> Publication:
        """Tells Kafka for certain, and the user, if there is one, as long as that is worth anything."""
        message_id = new_id()
        self._messages.append(event_message(SLOT_ASSIGNED, event, correlation_id, now, message_id))
        return self._notify(SLOT_ASSIGNED, notification(event, correlation_id, now, message_id), user_id)

    def duplicate(
        self, event: EssaySlotAssignedV1, duplicate_of: str, user_id: str | None, now: datetime
    ) -> Publication:
        """Tells the user alone that the text of an upload has the slot that another upload was given."""
        body = notification(event, event.correlation_id, now, new_id(), duplicate_of)
        return self._notify(SLOT_ASSIGNED, body, user_id)

    def excess(self, event: ExcessContentProvisionedV1, user_id: str | None) -> Publication:
        """Tells Kafka and the user that the batch had no slot left for this content."""
        message_id = self._event(EXCESS_CONTENT, event)
        body = excess_notification(event, event.timestamp, message_id)
        return self._notify(EXCESS_CONTENT, body, user_id)

    def completed(self, event: BatchContentProvisioningCompletedV1) -> None:
        """Tells Kafka that the last slot of a batch is filled."""
        self._event(PROVISIONING_COMPLETED, event)

    def _event(self, topic: str, event: ElsEvent) -> UUID:
        message_id = new_id()
        self._messages.append(event_message(topic, event, event.correlation_id, event.timestamp, message_id))
        return message_id

    def _notify(self, topic: str, body: Told, user_id: str | None) -> Publication:
        data = body.data
        essay_id = None if isinstance(data, ExcessData) else data.essay_id
        channel = None if user_id is None else channel_of(user_id)
        if user_id is None:
            WITHOUT_USER.inc()
            _log.warning("els.no_user", batch_id=data.batch_id, file_upload_id=data.file_upload_id)
        else:
            expires_at = body.timestamp + self._notify_within
            self._messages.append(notification_message(topic, user_id, body, expires_at))
        return Publication(data.batch_id, essay_id, data.file_upload_id, channel, body.message_id)

    async def write(self, session: Transaction) -> None:
        """Writes all of it in the caller's transaction, in one statement."""
        await write(session, *self._messages)


async def publish_essay_slot_assigned(
    session: Transaction,
    event_data: EssaySlotAssignedV1,
    correlation_id: UUID,
    *,
    notify_within: timedelta = NOTIFY_WITHIN,
) -> UUID:
    """Tells Kafka for certain, and the browser of the batch's user, if it has one, within `notify_within`.

    Returns the `message_id` of both.
    """
    user = select(els_batches.c.user_id).where(els_batches.c.batch_id == event_data.batch_id)
    found = await session.execute(select(func.clock_timestamp(), user.scalar_subquery()))
    now, user_id = found.one()
    saying = Saying(notify_within)
    published = saying.assigned(event_data, user_id, correlation_id, now)
    await saying.write(session)
    return published.message_id


def event_message(
    topic: str, event_data: ElsEvent, correlation_id: UUID, written_at: datetime, message_id: UUID
) -> Message:
    """Makes the message for Kafka, the event in its envelope. What is said of one batch keeps its order."""
    envelope = envelope_of(type(event_data))(
        event_id=message_id,
        event_type=topic,
        event_timestamp=written_at,
        source_service=SOURCE_SERVICE,
        correlation_id=correlation_id,
        data=event_data,
        metadata=trace() or None,
    )
    return kafka_message(event_data.batch_id, envelope)


def notification(
    event_data: EssaySlotAssignedV1,
    correlation_id: UUID,
    written_at: datetime,
    message_id: UUID,
    duplicate_of: str | None = None,
) -> SlotAssignedNotification:
    """Makes what the browser hears of an assignment, or of the upload `duplicate_of` which it repeats."""
    data = SlotAssignmentData(
        batch_id=event_data.batch_id,
        essay_id=event_data.essay_id,
        file_upload_id=event_data.file_upload_id,
        filename=_known(event_data.original_file_name),
        slot_index=event_data.slot_index,
        text_storage_id=event_data.text_storage_id,
        timestamp=event_data.timestamp,
    )
    if duplicate_of is not None:
        data = DuplicateAssignmentData(**dict(data), duplicate_of=duplicate_of)
    return SlotAssignedNotification(
        message_id=message_id, correlation_id=correlation_id, timestamp=written_at, data=data
    )


def excess_notification(
    event_data: ExcessContentProvisionedV1, written_at: datetime, message_id: UUID
) -> ExcessNotification:
    """Makes what the browser hears of content that found no slot."""
    return ExcessNotification(
        message_id=message_id,
        correlation_id=event_data.correlation_id,
        timestamp=written_at,
        data=ExcessData(
            batch_id=event_data.batch_id,
            file_upload_id=event_data.file_upload_id,
            filename=_known(event_data.original_file_name),
            reason=event_data.reason,
            timestamp=event_data.timestamp,
        ),
    )


def _known(name: str) -> str | None:
    return None if name == UNKNOWN else name


def notification_message(topic: str, user_id: str, body: Told, expires_at: datetime) -> Message:
    """Makes the message for Redis that carries a notification. What one user is told keeps its order."""
    return Message(
        type=topic,
        sink="redis",
        destination=channel_of(user_id),
        key=user_id,
        payload=body.model_dump_json().encode(),
        headers={"content_type": "application/json", "correlation_id": str(body.correlation_id), **trace()},
        expires_at=expires_at,
        message_id=body.message_id,
    )
