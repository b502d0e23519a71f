"""What arrived, against what is in `outbox`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import asyncpg
from redis.asyncio import Redis

from tests.faults.place import CHANNELS, TOPICS, Place
from tests.faults.writing import GOOD

_PAGE = 10_000


@dataclass
class Findings:
    """What a campaign found."""

    written: int = 0
    """Messages that must have arrived."""
    arrived: int = 0
    """Of these, all that did, those that came again too."""
    lost: list[int] = field(default_factory=list)
    """By id in `outbox`."""
    inversions: list[tuple[int, int]] = field(default_factory=list)
    """Pairs of one key of which the later arrived first before the earlier had."""

    @property
    def repeated(self) -> int:
        """How many came again."""
        return self.arrived - (self.written - len(self.lost))


async def compare(place: Place, connection: asyncpg.Connection) -> Findings:
    """Reads all topics and channels."""
    rows = {
        str(row["message_id"]): row
        for row in await connection.fetch(
            "SELECT id, message_id, sink, destination, key FROM outbox WHERE type = $1", GOOD
        )
        if row["id"] not in place.touched
    }
    findings = Findings()
    first: dict[tuple[str, str, str | None], dict[int, None]] = defaultdict(dict)
    seen: set[str] = set()
    async for message_id in _arrivals(place):
        row: Any = rows.get(message_id)
        if row is None:
            continue
        findings.arrived += 1
        seen.add(message_id)
        if row["key"] is not None:
            first[row["sink"], row["destination"], row["key"]].setdefault(row["id"])
    findings.written = len(rows)
    findings.lost = sorted(rows[message_id]["id"] for message_id in rows.keys() - seen)
    findings.inversions = [pair for ids in first.values() for pair in pairwise(ids) if pair[0] > pair[1]]
    return findings


async def _arrivals(place: Place) -> AsyncIterator[str]:
    for topic in TOPICS:
        # In the order of its partitions; a key is in one of them.
        for record in await place.topics.read(topic, deadline=300.0):
            yield record.headers["message_id"].decode()
    async with Redis.from_url(place.environment["OUTBOX_REDIS_URL"]) as redis:
        for channel in CHANNELS:
            after = b"-"
            while page := cast("list[Any]", await redis.xrange(f"{channel}:log", min=after, count=_PAGE)):
                for _, entry in page:
                    yield entry[b"message_id"].decode()
                after = b"(" + page[-1][0]
