"""What other services find out about essays."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from outbox.huleedu.events.fields import COUNT_MAX, Count, Id, Model, Number, Object, Text


class SpellcheckResultV1(Model):
    """The spelling of one essay was checked, or could not be."""

    entity_id: Id
    """The essay."""
    batch_id: Id
    status: Text
    """It worked if SUCCESS is in it, such as `spellchecked_success`."""
    corrections_made: Count | None = None
    corrected_text_storage_id: Id | None = None
    """Where the corrected text is."""
    system_metadata: Object | None = None
    """Its `error_info` says what went wrong."""

    @property
    def succeeded(self) -> bool:
        """True if the spelling was checked."""
        return "SUCCESS" in self.status.upper()

    @property
    def error_info(self) -> Object | None:
        """What went wrong with the spellcheck, if something did and somebody said so."""
        info = (self.system_metadata or {}).get("error_info")
        return info if info and isinstance(info, dict) and not self.succeeded else None


class EssayResultV1(Model):
    """What the comparison found of one essay."""

    essay_id: Id
    rank: Annotated[int, Field(ge=1, le=COUNT_MAX)] | None = None
    """Its place in the batch, from one."""
    bt_score: Number | None = None
    """Its Bradley-Terry score."""
    normalized_score: Number | None = None
    letter_grade: Text | None = None
    is_anchor: bool = False
    """An essay of known grade that was mixed in; no student's."""


class AssessmentResultV1(Model):
    """The essays of a batch were compared with each other."""

    batch_id: Id
    assignment_id: Id | None = None
    essay_results: tuple[EssayResultV1, ...]
