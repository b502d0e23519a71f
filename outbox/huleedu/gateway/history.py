"""Which history of Redis this is, and when it began: noted in Redis itself, for all gateways.

Each promotion and each restart begins another one, with another replication id. What was appended shortly
before may be lost then, and nothing in Redis tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from redis.asyncio import Redis

HISTORY = "ws:history"
"""The key under which it is noted."""


class History(NamedTuple):
    """A history of Redis."""

    replication: str
    """The master's replication id."""
    began: int
    """Since when logs are whole in it; milliseconds since the epoch, by the clock of Redis."""

    @classmethod
    def read(cls, noted: bytes | None) -> Self | None:
        """Returns the history that was noted; None if none was, or nothing that can be read."""
        match (noted or b"").decode(errors="replace").split():
            case [replication, began] if began.isdecimal():
                return cls(replication, int(began))
            case _:
                return None


def _replication_of(info: Mapping[str, Any]) -> str | None:
    """Returns the replication id of a master, from its INFO, if it has any; None for a replica."""
    return str(info.get("master_replid", "unknown")) if info.get("role", "master") == "master" else None


async def note_history(redis: Redis, leeway: float) -> str | None:
    """Notes that another history has begun, if one has; returns its replication id, None for a replica.

    Raises RedisError where that cannot be done. `leeway` seconds are added where the history before may have
    been on another server's clock.
    """
    pipe = redis.pipeline(transaction=False)
    pipe.info("replication")
    pipe.get(HISTORY)
    pipe.time()
    info, noted, (seconds, micros) = await pipe.execute()
    before, now = History.read(noted), _replication_of(info)
    if now is None or (before and before.replication == now):
        return now
    began = seconds * 1_000 + micros // 1_000 + (int(leeway * 1_000) if before else 0)
    await redis.set(HISTORY, f"{now} {began}")
    return now
