"""What a browser missed: read from the capped stream that the outbox's Redis sink keeps for each user."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from redis.asyncio import BlockingConnectionPool, Redis

from outbox.huleedu.channels import channel_of, stream_of
from outbox.huleedu.gateway.settings import GatewaySettings

_PAGE = 64
_Page = Sequence[tuple[bytes, Mapping[bytes, bytes]]]


class Missed(NamedTuple):
    """What came after the last message that a client saw."""

    texts: list[str]
    """In the order of publication, each once."""
    known: set[str]
    """The ids of all messages that were read, so also of some that the client has."""


class RecentMessages:
    """The capped streams of all users; an entry has the fields `message_id` and `data`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._timeout = settings.redis_timeout_seconds
        pool = BlockingConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            client_name="websocket-gateway-missed",
            max_connections=8,
            timeout=self._timeout,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
        )
        self._redis = Redis.from_pool(pool)

    async def since(self, user: str, message_id: str) -> Missed | None:
        """Returns what came after `message_id`, or None when that is not in the stream any more.

        Read backwards, because most reconnects missed little. Raises RedisError, OSError or
        TimeoutError while Redis cannot be reached.
        """
        newer: list[tuple[str, str]] = []
        known: set[str] = set()
        stream, found, end = stream_of(channel_of(user)), False, "+"
        async with asyncio.timeout(self._timeout):
            while not found and (page := cast("_Page", await self._redis.xrevrange(stream, end, "-", _PAGE))):
                for _, fields in page:
                    name, text = _entry(fields)
                    known.add(name)
                    found = found or name == message_id
                    if not found:
                        newer.append((name, text))
                end = f"({page[-1][0].decode()}"
        # A sink that was not sure repeats a message: the first time counts.
        return Missed(list(dict(reversed(newer)).values()), known) if found else None

    async def close(self) -> None:
        """Disconnects from Redis."""
        await self._redis.aclose()


def id_of(text: str) -> str | None:
    """Returns the `message_id` of a notification, or None when it has none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    name = document.get("message_id") if isinstance(document, dict) else None
    return name if isinstance(name, str) else None


def _entry(fields: Mapping[bytes, bytes]) -> tuple[str, str]:
    return fields[b"message_id"].decode(), fields[b"data"].decode()
