"""What operators ask and do: every read and action of the command line and the dashboard.

Functions over one connection (see `connect`). States are those of the view `outbox_state`.
"""

from outbox.operate.act import Done, retry, skip
from outbox.operate.connection import connect
from outbox.operate.depth import RelayStatus, SinkStatus, Status, depths, status
from outbox.operate.evidence import sinks
from outbox.operate.explain import Cause, Explanation, explain, explain_id, explain_place
from outbox.operate.groups import Group, groups
from outbox.operate.integrity import look
from outbox.operate.mend import Damage, Lost, repair, survey
from outbox.operate.pages import Count, Page, page, tally
from outbox.operate.pauses import Pause, Place, pause, pauses, resume
from outbox.operate.state import DONE, PENDING, DeliveryState, Details, Selection, count, show
from outbox.operate.trace import Moment, Trace, follow, timeline, trace
from outbox.schema.integrity import Amiss

__all__ = [
    "DONE",
    "PENDING",
    "Amiss",
    "Cause",
    "Count",
    "Damage",
    "DeliveryState",
    "Details",
    "Done",
    "Explanation",
    "Group",
    "Lost",
    "Moment",
    "Page",
    "Pause",
    "Place",
    "RelayStatus",
    "Selection",
    "SinkStatus",
    "Status",
    "Trace",
    "connect",
    "count",
    "depths",
    "explain",
    "explain_id",
    "explain_place",
    "follow",
    "groups",
    "look",
    "page",
    "pause",
    "pauses",
    "repair",
    "resume",
    "retry",
    "show",
    "sinks",
    "skip",
    "status",
    "survey",
    "tally",
    "timeline",
    "trace",
]
