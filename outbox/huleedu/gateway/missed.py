"""What a browser missed: read from the capped stream that the outbox's Redis sink keeps for each user.

What a log says can be believed only for the history that it belongs to. A failover, or a restart, may lose
the end of a log: then the log goes on as if nothing had been there. So a client is told what it missed
only if the message it saw last was appended to the history that Redis has now.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from redis.asyncio import Redis

from outbox.huleedu.channels import channel_of, stream_of
from outbox.huleedu.gateway.history import HISTORY, History, replication_of
from outbox.huleedu.gateway.probe import Probe

_Log = Sequence[tuple[bytes, Mapping[bytes, bytes]]]


class Missed(NamedTuple):
    """What came after the last message that a client saw."""

    texts: list[str]
    """In the order of publication, each once."""
    known: set[str]
    """The ids of all messages that were read, so also of some that the client has."""


class RecentMessages:
    """The capped streams of all users; an entry has the fields `message_id` and `data`."""

    def __init__(self, redis: Redis, probe: Probe, timeout: float) -> None:
        self._redis = redis
        self._probe = probe
        self._timeout = timeout

    async def since(self, user: str, message_id: str) -> Missed | None:
        """Returns what came after `message_id`, or None when that cannot be known any more.

        Raises RedisError, OSError or TimeoutError while Redis cannot be reached, LookupError or ValueError
        where something else stands in the log.
        """
        pipe = self._redis.pipeline(transaction=False)
        pipe.info("replication")
        pipe.get(HISTORY)
        pipe.xrange(stream_of(channel_of(user)))
        async with asyncio.timeout(self._timeout):
            info, noted, entries = await pipe.execute()
        history = History.read(noted)
        if history is None or not history.replication == replication_of(info) == self._probe.replication:
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
    # Ids rise with time. Behind a newer one stands a repeat, whose first copy was trimmed.
    if appended < began or max(before) > message_id:
        return None
    rest = zip(names[first:], entries[first:], strict=True)
    newer = [(name, fields[b"data"].decode()) for name, (_, fields) in rest if name not in before]
    # A dict keeps the place of the first of several.
    return Missed(list(dict(newer).values()), set(names))


def id_of(text: str) -> str | None:
    """Returns the `message_id` of a notification, or None when it has none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    name = document.get("message_id") if isinstance(document, dict) else None
    return name if isinstance(name, str) else None
