"""The Essay Lifecycle Service: assigns uploaded content to the slots of its batch, and says so.

This is ELS as a library, in a transaction of the caller's: `await assign_slot(session, content)`. It needs a
database and nothing else. As a process, or embedded in a program, it is in `outbox.huleedu.els.service`.
"""

from outbox.huleedu.els.assign import Assigned, Excess, SlotOutcome, Waiting, assign_slot, register_batch
from outbox.huleedu.els.publish import publish_essay_slot_assigned

__all__ = [
    "Assigned",
    "Excess",
    "SlotOutcome",
    "Waiting",
    "assign_slot",
    "publish_essay_slot_assigned",
    "register_batch",
]
