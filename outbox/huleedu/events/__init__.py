"""What HuleEdu's services say to each other and to browsers, as pydantic models."""

from outbox.huleedu.events.batches import (
    UNKNOWN,
    BatchContentProvisioningCompletedV1,
    BatchEssaysRegistered,
    EssayContentProvisionedV1,
    EssayProcessingInputRefV1,
    EssaySlotAssignedV1,
    ExcessContentProvisionedV1,
)
from outbox.huleedu.events.envelope import EventEnvelope, envelope_of
from outbox.huleedu.events.notification import (
    DuplicateAssignmentData,
    ExcessData,
    ExcessNotification,
    Notification,
    SlotAssignedNotification,
    SlotAssignmentData,
)
from outbox.huleedu.events.results import AssessmentResultV1, EssayResultV1, SpellcheckResultV1
from outbox.huleedu.events.topics import (
    ASSESSMENT_PUBLISHED,
    CONTENT_PROVISIONED,
    ESSAYS_REGISTERED,
    EXCESS_CONTENT,
    PROVISIONING_COMPLETED,
    SLOT_ASSIGNED,
    SPELLCHECK_RESULTS,
    TOPICS,
)

__all__ = [
    "ASSESSMENT_PUBLISHED",
    "CONTENT_PROVISIONED",
    "ESSAYS_REGISTERED",
    "EXCESS_CONTENT",
    "PROVISIONING_COMPLETED",
    "SLOT_ASSIGNED",
    "SPELLCHECK_RESULTS",
    "TOPICS",
    "UNKNOWN",
    "AssessmentResultV1",
    "BatchContentProvisioningCompletedV1",
    "BatchEssaysRegistered",
    "DuplicateAssignmentData",
    "EssayContentProvisionedV1",
    "EssayProcessingInputRefV1",
    "EssayResultV1",
    "EssaySlotAssignedV1",
    "EventEnvelope",
    "ExcessContentProvisionedV1",
    "ExcessData",
    "ExcessNotification",
    "Notification",
    "SlotAssignedNotification",
    "SlotAssignmentData",
    "SpellcheckResultV1",
    "envelope_of",
]
