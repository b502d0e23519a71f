"""What operators ask and do: every read and action of the command line and the dashboard.

Functions over one connection (see `connect`). States are those of the view `outbox_state`.
"""

from outbox.operate.act import done, park, replay, retry, skip
from outbox.operate.audit import Hook, Recorded, acts, load_hook, record, recorded, tell
from outbox.operate.carry_out import Done, Step, Work
from outbox.operate.connection import connect
from outbox.operate.depth import RelayStatus, SinkStatus, Status, depths, status
from outbox.operate.evidence import sinks
from outbox.operate.explain import Cause, Explanation, explain, explain_id, explain_place
from outbox.operate.groups import Group, groups
from outbox.operate.integrity import look
from outbox.operate.mend import Damage, Lost, repair, survey
from outbox.operate.operations import Operation, Preview, ask, cancel, operation, preview, under_way
from outbox.operate.pages import Count, Page, page, tally
from outbox.operate.pauses import Pause, Place, pause, pauses, resume
from outbox.operate.state import DONE, PENDING, DeliveryState, Details, Selection, count, show
from outbox.operate.trace import Moment, Trace, follow, timeline, trace
from outbox.operate.wishes import Act, Who, Wish
from outbox.schema.integrity import Amiss

__all__ = [
    "DONE",
    "PENDING",
    "Act",
    "Amiss",
    "Cause",
    "Count",
    "Damage",
    "DeliveryState",
    "Details",
    "Done",
    "Explanation",
    "Group",
    "Hook",
    "Lost",
    "Moment",
    "Operation",
    "Page",
    "Pause",
    "Place",
    "Preview",
    "Recorded",
    "RelayStatus",
    "Selection",
    "SinkStatus",
    "Status",
    "Step",
    "Trace",
    "Who",
    "Wish",
    "Work",
    "acts",
    "ask",
    "cancel",
    "connect",
    "count",
    "depths",
    "done",
    "explain",
    "explain_id",
    "explain_place",
    "follow",
    "groups",
    "load_hook",
    "look",
    "operation",
    "page",
    "park",
    "pause",
    "pauses",
    "preview",
    "record",
    "recorded",
    "repair",
    "replay",
    "resume",
    "retry",
    "show",
    "sinks",
    "skip",
    "status",
    "survey",
    "tally",
    "tell",
    "timeline",
    "trace",
    "under_way",
]
