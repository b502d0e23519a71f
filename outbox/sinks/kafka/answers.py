"""What each error code of a broker means for what was sent, by the Kafka protocol's own names.

Source: https://kafka.apache.org/protocol#protocol_error_codes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Blame = Literal["none", "record", "leader", "part", "destination", "sink", "name", "time", "unknown"]
"""Who is at fault.

- `none`: it worked
- `record`: a record in the batch; the broker took nothing of the batch
- `leader`: the partition is led by another broker now; ask which, and send again
- `part`, `destination`, `sink`: this much is down
- `name`: the destination's name, which no topic can have
- `time`: a record's time is too far from the broker's clock, or ours is
- `unknown`: the code does not tell
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One error code, explained."""

    name: str
    blame: Blame
    appended: bool = False
    """Whether the batch may be in the log all the same."""


def answer(code: int) -> Answer:
    """Returns what a code means; one that is not known here is `unknown`, and may have been appended."""
    return _ANSWERS.get(code) or Answer(f"error code {code}", "unknown", appended=True)


_ANSWERS = {
    -1: Answer("UNKNOWN_SERVER_ERROR", "unknown", appended=True),
    0: Answer("NONE", "none", appended=True),
    2: Answer("CORRUPT_MESSAGE", "record"),
    3: Answer("UNKNOWN_TOPIC_OR_PARTITION", "leader"),
    5: Answer("LEADER_NOT_AVAILABLE", "leader"),
    # A leader that steps down while it waits for its followers says so too.
    6: Answer("NOT_LEADER_OR_FOLLOWER", "leader", appended=True),
    7: Answer("REQUEST_TIMED_OUT", "part", appended=True),
    8: Answer("BROKER_NOT_AVAILABLE", "part"),
    9: Answer("REPLICA_NOT_AVAILABLE", "leader"),
    10: Answer("MESSAGE_TOO_LARGE", "record"),
    13: Answer("NETWORK_EXCEPTION", "part", appended=True),
    17: Answer("INVALID_TOPIC_EXCEPTION", "name"),
    18: Answer("RECORD_LIST_TOO_LARGE", "record"),
    19: Answer("NOT_ENOUGH_REPLICAS", "part"),
    20: Answer("NOT_ENOUGH_REPLICAS_AFTER_APPEND", "part", appended=True),
    29: Answer("TOPIC_AUTHORIZATION_FAILED", "destination"),
    31: Answer("CLUSTER_AUTHORIZATION_FAILED", "sink"),
    32: Answer("INVALID_TIMESTAMP", "time"),
    35: Answer("UNSUPPORTED_VERSION", "sink"),
    43: Answer("UNSUPPORTED_FOR_MESSAGE_FORMAT", "record"),
    44: Answer("POLICY_VIOLATION", "destination"),
    56: Answer("KAFKA_STORAGE_ERROR", "leader", appended=True),
    74: Answer("FENCED_LEADER_EPOCH", "leader"),
    75: Answer("UNKNOWN_LEADER_EPOCH", "leader"),
    76: Answer("UNSUPPORTED_COMPRESSION_TYPE", "destination"),
    87: Answer("INVALID_RECORD", "record"),
    89: Answer("THROTTLING_QUOTA_EXCEEDED", "destination"),
}
