"""What a user's browser hears over Redis and the WebSocket: ids and names only, never content."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from outbox.huleedu.events.fields import Count, FileName, Id, Model, Moment


class SlotAssignmentData(Model):
    """Which upload got which slot."""

    batch_id: Id
    essay_id: Id
    file_upload_id: Id
    filename: FileName | None
    """Null where the upload had no name."""
    slot_index: Count | None
    """From zero."""
    text_storage_id: Id
    timestamp: Moment
    """When the slot was assigned."""


class SlotAssignedNotification(Model):
    """The body of a message on channel `ws:{user_id}`."""

    event: Literal["essay_slot_assigned"] = "essay_slot_assigned"
    message_id: UUID
    """The same as the event's on Kafka; a browser that reconnects resumes after it."""
    correlation_id: UUID
    timestamp: Moment
    """When the message was written."""
    data: SlotAssignmentData
