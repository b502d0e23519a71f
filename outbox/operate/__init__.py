"""What operators ask and do: every read and action of the command line and the dashboard.

Functions over one connection (see `connect`). States are those of the view `outbox_state`.
"""

from outbox.operate.act import Done, retry, skip
from outbox.operate.connection import connect
from outbox.operate.depth import Depth, RelayStatus, SinkStatus, Status, depths, status
from outbox.operate.integrity import look
from outbox.operate.mend import Damage, Lost, repair, survey
from outbox.operate.state import DONE, PENDING, DeliveryState, Details, Selection, count, find, show
from outbox.operate.trace import Trace, follow, trace
from outbox.schema.integrity import Amiss

__all__ = [
    "DONE",
    "PENDING",
    "Amiss",
    "Damage",
    "DeliveryState",
    "Depth",
    "Details",
    "Done",
    "Lost",
    "RelayStatus",
    "Selection",
    "SinkStatus",
    "Status",
    "Trace",
    "connect",
    "count",
    "depths",
    "find",
    "follow",
    "look",
    "repair",
    "retry",
    "show",
    "skip",
    "status",
    "survey",
    "trace",
]
