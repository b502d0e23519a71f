"""What is said of a batch until its slots are filled: registration, content, slots."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, field_validator, model_validator

from outbox.huleedu.events.fields import Count, FileName, Id, Model, Moment, Name, Object, Text, UserId

ESSAYS_MAX = 1_000
"""Essays of a batch, ten times what is expected; the message that names them all stays below 1 MB."""

UNKNOWN = "unknown"
"""What stands where a name or a course is required and nobody gave one."""


def _now() -> datetime:
    return datetime.now(UTC)


class BatchEssaysRegistered(Model):
    """A batch exists, with these essays: its slots, in this order."""

    event: Literal["batch.essays.registered"] = "batch.essays.registered"
    entity_id: Id
    """The batch."""
    expected_essay_count: Annotated[int, Field(ge=1, le=ESSAYS_MAX)]
    """How many essays there are."""
    essay_ids: Annotated[tuple[Id, ...], Field(min_length=1, max_length=ESSAYS_MAX)]
    """Slot n is the n-th of these, from zero."""
    user_id: UserId | None = None
    """Whose batch it is; without it nobody is notified."""
    org_id: Id | None = None
    class_id: Id | None = None
    course_code: Name | None = None
    student_prompt_ref: Object | None = None
    """Where the task's text is."""
    metadata: Object | None = None

    @model_validator(mode="after")
    def _has_as_many_as_it_says(self) -> Self:
        there, expected = len(self.essay_ids), self.expected_essay_count
        if len(set(self.essay_ids)) < there:
            raise ValueError("essay_ids has one of them twice")
        if there != expected:
            raise ValueError(f"expected_essay_count is {expected}, and essay_ids has {there}")
        return self


class EssayContentProvisionedV1(Model):
    """A file was uploaded, and its text is stored."""

    event: Literal["essay.content.provisioned"] = "essay.content.provisioned"
    entity_id: Id
    """The batch it is for."""
    file_upload_id: Id
    """The upload; the browser that made it knows it by this."""
    original_file_name: FileName | None = None
    raw_file_storage_id: Id
    """Where the file is."""
    text_storage_id: Id
    """Where its text is."""
    file_size_bytes: Annotated[int, Field(ge=0)]
    content_md5_hash: Text | None = None
    correlation_id: UUID
    timestamp: Moment

    @field_validator("original_file_name")
    @classmethod
    def _says_something(cls, name: str | None) -> str | None:
        return name or None


class EssaySlotAssignedV1(Model):
    """An uploaded file has its slot."""

    event: Literal["essay.slot.assigned"] = "essay.slot.assigned"
    batch_id: Id
    essay_id: Id
    """The essay of the slot."""
    file_upload_id: Id
    text_storage_id: Id
    original_file_name: FileName
    """`unknown` where the upload had no name."""
    slot_index: Count | None = None
    """The essay's position in the registration's `essay_ids`, from zero."""
    correlation_id: UUID
    timestamp: Moment = Field(default_factory=_now)
    """When the slot was assigned."""


class EssayProcessingInputRefV1(Model):
    """An essay and where its text is."""

    essay_id: Id
    text_storage_id: Id
    spellcheck_metrics: Object | None = None


class BatchContentProvisioningCompletedV1(Model):
    """The last slot of a batch is filled."""

    event: Literal["batch.content.provisioning.completed"] = "batch.content.provisioning.completed"
    batch_id: Id
    provisioned_count: Count
    """Essays that have content."""
    expected_count: Count
    """Essays that the batch has."""
    course_code: Name
    """`unknown` where the registration named none."""
    user_id: UserId | None = None
    essays_for_processing: tuple[EssayProcessingInputRefV1, ...]
    """All of them, in the order of their slots."""
    correlation_id: UUID
    timestamp: Moment = Field(default_factory=_now)


class ExcessContentProvisionedV1(Model):
    """A file was uploaded to a batch that had no slot left."""

    event: Literal["excess.content.provisioned"] = "excess.content.provisioned"
    batch_id: Id
    original_file_name: FileName
    """`unknown` where the upload had no name."""
    text_storage_id: Id
    file_upload_id: Id
    reason: Literal["NO_AVAILABLE_SLOT"] = "NO_AVAILABLE_SLOT"
    correlation_id: UUID
    timestamp: Moment = Field(default_factory=_now)
