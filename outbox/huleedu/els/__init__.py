"""The Essay Lifecycle Service: assigns uploaded content to the slots of its batch, and says so.

Works as a process, `main(ElsSettings.load())`; within a program, `async with Els(settings):`; and as a
library in a transaction of yours, `await assign_slot(session, content)`.
"""

from outbox.huleedu.els.assign import Assigned, Excess, Outcome, Waiting, assign_slot, register_batch
from outbox.huleedu.els.publish import publish_essay_slot_assigned
from outbox.huleedu.els.service import Els, main, serve
from outbox.huleedu.els.settings import ElsSettings

__all__ = [
    "Assigned",
    "Els",
    "ElsSettings",
    "Excess",
    "Outcome",
    "Waiting",
    "assign_slot",
    "main",
    "publish_essay_slot_assigned",
    "register_batch",
    "serve",
]
