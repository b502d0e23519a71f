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


class DuplicateAssignmentData(SlotAssignmentData):
    """Which slot has the text of an upload whose text was uploaded before."""

    duplicate_of: Id
    """The upload that the slot was given to."""


class ExcessData(Model):
    """Which upload found no slot."""

    batch_id: Id
    file_upload_id: Id
    filename: FileName | None
    """Null where the upload had no name."""
    reason: Literal["NO_AVAILABLE_SLOT"] = "NO_AVAILABLE_SLOT"
    timestamp: Moment
    """When that was found."""


class Notification(Model):
    """The body of a message on channel `ws:{user_id}`."""

    event: str
    message_id: UUID
    """The same as the event's on Kafka; a browser that reconnects resumes after it."""
    correlation_id: UUID
    timestamp: Moment
    """When the message was written."""


class SlotAssignedNotification(Notification):
    """Tells that an upload has a slot, or that its text has."""

    event: Literal["essay_slot_assigned"] = "essay_slot_assigned"
    data: DuplicateAssignmentData | SlotAssignmentData


class ExcessNotification(Notification):
    """Tells that an upload found no slot."""

    event: Literal["essay_excess"] = "essay_excess"
    data: ExcessData
