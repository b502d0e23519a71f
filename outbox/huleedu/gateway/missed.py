"""What a browser missed: read from the capped stream that the outbox's Redis sink keeps for each user.

What a log says can be believed only for the history that it belongs to. A failover, or a restart, may lose
the end of a log: then the log goes on as if nothing had been there. So a client is told what it missed
only if the message it saw last was appended to the history that Redis has now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from outbox.huleedu.channels import channel_of, stream_of
from outbox.huleedu.gateway.history import HISTORY, History
from outbox.huleedu.gateway.probe import Probe
from outbox.huleedu.gateway.reads import Reads

_Log = Sequence[tuple[bytes, Mapping[bytes, bytes]]]


class Missed(NamedTuple):
    """What came after the last message that a client saw."""

    texts: list[str]
    """In the order of publication, each once."""
    known: set[str]
    """The ids of all messages that were read, so also of some that the client has."""


class RecentMessages:
    """The capped streams of all users; an entry has the fields `message_id` and `data`."""

    def __init__(self, reads: Reads, probe: Probe) -> None:
        self._reads = reads
        self._probe = probe

    async def since(self, user: str, message_id: str) -> Missed | None:
        """Returns what came after `message_id`, or None when that cannot be known any more.

        Raises RedisError, OSError or TimeoutError while Redis cannot be reached, LookupError or ValueError
        where something else stands in the log.
        """
        log = ("XRANGE", stream_of(channel_of(user)), "-", "+")
        noted, entries = await self._reads.ask(("GET", HISTORY), log)
        history = History.read(noted)
        # Another server than the probe's may answer, which was the master once.
        if history is None or history.replication != self._probe.replication:
            return None
        return _after(message_id, cast("_Log", entries), history.began)


def _after(message_id: str, entries: _Log, began: int) -> Missed | None:
    names = [fields[b"message_id"].decode() for _, fields in entries]
    if message_id not in names:
        return None
    # A sink that was not sure repeats messages, perhaps only some: what follows the first copy counts.
    first = names.index(message_id)
    appended = int(entries[first][0].partition(b"-")[0])
    before = set(names[: first + 1])
    if appended < began or any(_is_newer(name, message_id) for name in before):
        return None
    rest = zip(names[first:], entries[first:], strict=True)
    newer = [(name, fields[b"data"].decode()) for name, (_, fields) in rest if name not in before]
    # A dict keeps the place of the first of several.
    return Missed(list(dict(newer).values()), set(names))


def _is_newer(name: str, message_id: str) -> bool:
    """Returns True if this is the id of a newer message, as only UUIDv7 tell.

    What stands behind that in a log is a repeat, whose first copy was trimmed.
    """
    return name[14:15] == message_id[14:15] == "7" and name > message_id


def id_of(text: str) -> str | None:
    """Returns the `message_id` of a notification, or None when it has none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    name = document.get("message_id") if isinstance(document, dict) else None
    return name if isinstance(name, str) else None
