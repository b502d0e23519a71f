"""What operators ask and do: every read and action of the command line and the dashboard.

Functions over one connection (see `connect`). States are those of the view `outbox_state`.
"""

from outbox.operate.act import Done, retry, skip
from outbox.operate.connection import connect
from outbox.operate.depth import Depth, RelayStatus, SinkStatus, Status, depths, status
from outbox.operate.state import DONE, PENDING, DeliveryState, Details, Selection, count, find, show
from outbox.operate.trace import Trace, follow, trace

__all__ = [
    "DONE",
    "PENDING",
    "DeliveryState",
    "Depth",
    "Details",
    "Done",
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
    "retry",
    "show",
    "skip",
    "status",
    "trace",
]
