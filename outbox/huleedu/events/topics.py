"""Kafka's topics, by what is in them. A topic's name is the `event_type` of its events."""

from __future__ import annotations

from collections.abc import Mapping

from outbox.huleedu.events.batches import (
    BatchContentProvisioningCompletedV1,
    BatchEssaysRegistered,
    EssayContentProvisionedV1,
    EssaySlotAssignedV1,
    ExcessContentProvisionedV1,
)
from outbox.huleedu.events.fields import Model
from outbox.huleedu.events.results import AssessmentResultV1, SpellcheckResultV1

ESSAYS_REGISTERED = "huleedu.batch.essays.registered.v1"
CONTENT_PROVISIONED = "huleedu.file.essay.content.provisioned.v1"
SLOT_ASSIGNED = "huleedu.els.essay.slot.assigned.v1"
PROVISIONING_COMPLETED = "huleedu.batch.content.provisioning.completed.v1"
EXCESS_CONTENT = "huleedu.els.excess.content.provisioned.v1"
SPELLCHECK_RESULTS = "huleedu.essay.spellcheck.results.v1"
ASSESSMENT_PUBLISHED = "huleedu.assessment.result.published.v1"

TOPICS: Mapping[str, type[Model]] = {
    ESSAYS_REGISTERED: BatchEssaysRegistered,
    CONTENT_PROVISIONED: EssayContentProvisionedV1,
    SLOT_ASSIGNED: EssaySlotAssignedV1,
    PROVISIONING_COMPLETED: BatchContentProvisioningCompletedV1,
    EXCESS_CONTENT: ExcessContentProvisionedV1,
    SPELLCHECK_RESULTS: SpellcheckResultV1,
    ASSESSMENT_PUBLISHED: AssessmentResultV1,
}
"""Topic → what the `data` of its events is."""
