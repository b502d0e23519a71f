"""The answer to "how is this batch?": its form, and how it follows from what is known.

An essay has *failed* when its spellcheck failed, and is *completed* when it was spellchecked and assessed.
From that follows `overall_status`, the first of these that is true:

- `pending_content`: no result has come, and an essay has no content yet
- `ready`: no result has come
- `processing`: an essay has neither failed nor is completed
- `completed_successfully`: none has failed
- `failed`: all have
- `completed_with_failures`: some have

`cancelled` is said by no event yet. Times are those of the events. A field that no event speaks of is null:
`requested_pipeline` and `cj_assessment_error_detail` always are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from sqlalchemy import Row

from outbox.huleedu.events.fields import Model


class OverallStatus(StrEnum):
    """How far a batch is."""

    PENDING_CONTENT = "pending_content"
    READY = "ready"
    PROCESSING = "processing"
    COMPLETED_SUCCESSFULLY = "completed_successfully"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    FAILED = "failed"
    CANCELLED = "cancelled"


class EssayStatus(Model):
    """What is known of an essay."""

    essay_id: str
    file_upload_id: str | None
    """The upload that it came from; null: its slot is free."""
    filename: str | None
    slot_index: int | None
    """From zero; null: its slot is free."""
    spellcheck_status: Literal["completed", "failed"] | None
    spellcheck_correction_count: int | None
    spellcheck_corrected_text_storage_id: str | None
    spellcheck_error_detail: dict[str, Any] | None
    cj_assessment_status: Literal["completed", "failed"] | None
    cj_rank: int | None
    """Its place in the batch, from one."""
    cj_score: float | None
    """Its Bradley-Terry score."""
    cj_assessment_error_detail: dict[str, Any] | None
    last_updated: datetime

    @property
    def has_failed(self) -> bool:
        """True if a step failed: nothing more will come of the essay."""
        return "failed" in (self.spellcheck_status, self.cj_assessment_status)

    @property
    def is_completed(self) -> bool:
        """True if the essay was spellchecked and assessed."""
        return self.spellcheck_status == self.cj_assessment_status == "completed"


class ExcessFile(Model):
    """An upload that found no slot."""

    file_upload_id: str
    filename: str | None
    """Null where the upload had no name."""
    text_storage_id: str


class BatchStatus(Model):
    """What is known of a batch."""

    batch_id: str
    user_id: str | None
    """Whose it is; null: nobody said."""
    assignment_id: str | None
    overall_status: OverallStatus
    essay_count: int
    completed_essay_count: int
    """Essays that were spellchecked and assessed."""
    failed_essay_count: int
    """Essays that failed."""
    requested_pipeline: str | None
    current_phase: Literal["spellcheck", "cj_assessment"] | None
    """What is being done while it is processed."""
    essays: list[EssayStatus]
    """In the order of their slots."""
    excess: list[ExcessFile]
    """In the order in which they found no slot."""
    created_at: datetime
    """When it was registered."""
    last_updated: datetime
    processing_started_at: datetime | None
    """When the first of its results came."""
    processing_completed_at: datetime | None
    """When the last one came."""
    student_prompt_ref: dict[str, Any] | None


class Problem(Model):
    """Why there is no answer."""

    error: str


def batch_status(rows: Sequence[Row[*tuple[Any, ...]]]) -> BatchStatus:
    """Returns the answer, from one row per essay in the order of slots; a batch has one at least.

    What found no slot is with the first.
    """
    batch, essays = rows[0], [_essay_status(row) for row in rows]
    excess = batch.excess or []
    results = [moment for row in rows for moment in (row.spellchecked_at, row.assessed_at) if moment]
    status = _overall_status(essays, started=bool(results))
    over = status not in (OverallStatus.PENDING_CONTENT, OverallStatus.READY, OverallStatus.PROCESSING)
    return BatchStatus(
        batch_id=batch.batch_id,
        user_id=batch.user_id,
        assignment_id=_assignment(rows),
        overall_status=status,
        essay_count=len(essays),
        completed_essay_count=sum(essay.is_completed for essay in essays),
        failed_essay_count=sum(essay.has_failed for essay in essays),
        requested_pipeline=None,
        current_phase=_phase(essays) if status is OverallStatus.PROCESSING else None,
        essays=essays,
        excess=[ExcessFile.model_validate(file) for file in excess],
        created_at=batch.registered_at,
        last_updated=max([*(essay.last_updated for essay in essays), *map(_said_at, excess)]),
        processing_started_at=min(results, default=None),
        processing_completed_at=max(results) if over else None,
        student_prompt_ref=batch.student_prompt_ref,
    )


def _said_at(excess: Mapping[str, str]) -> datetime:
    return datetime.fromisoformat(excess["said_at"])


def _essay_status(row: Row[*tuple[Any, ...]]) -> EssayStatus:
    moments = (row.registered_at, row.assigned_at, row.spellchecked_at, row.assessed_at)
    slot_index = row.position if row.slot_index is None else row.slot_index
    return EssayStatus(
        essay_id=row.essay_id,
        file_upload_id=row.file_upload_id,
        filename=row.filename,
        slot_index=None if row.file_upload_id is None else slot_index,
        spellcheck_status=row.spellcheck_status,
        spellcheck_correction_count=row.correction_count,
        spellcheck_corrected_text_storage_id=row.corrected_text_storage_id,
        spellcheck_error_detail=row.error_detail,
        cj_assessment_status=None if row.assessed_at is None else "completed",
        cj_rank=row.rank,
        cj_score=row.score,
        cj_assessment_error_detail=None,
        last_updated=max(filter(None, moments)),
    )


def _overall_status(essays: Sequence[EssayStatus], *, started: bool) -> OverallStatus:
    failed = sum(essay.has_failed for essay in essays)
    if not started:
        complete = all(essay.file_upload_id is not None for essay in essays)
        return OverallStatus.READY if complete else OverallStatus.PENDING_CONTENT
    if not all(essay.has_failed or essay.is_completed for essay in essays):
        return OverallStatus.PROCESSING
    if not failed:
        return OverallStatus.COMPLETED_SUCCESSFULLY
    return OverallStatus.FAILED if failed == len(essays) else OverallStatus.COMPLETED_WITH_FAILURES


def _phase(essays: Sequence[EssayStatus]) -> Literal["spellcheck", "cj_assessment"]:
    unchecked = any(essay.spellcheck_status is None for essay in essays)
    return "spellcheck" if unchecked else "cj_assessment"


def _assignment(rows: Sequence[Row[*tuple[Any, ...]]]) -> str | None:
    """Returns the assignment that the latest assessment names; None if none does."""
    named = [(row.assessed_at, row.assignment_id) for row in rows if row.assignment_id is not None]
    return max(named)[1] if named else None
