"""Who listens to whom: brings each user's messages to that user's sockets, and to nobody else's.

There is one subscription per user, however many sockets, from the first to the last of them.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from outbox.huleedu.channels import channel_of
from outbox.huleedu.gateway import metrics
from outbox.huleedu.gateway.audience import Audience, Listener
from outbox.huleedu.gateway.closing import NO_UPDATES
from outbox.huleedu.gateway.limits import TokenBucket
from outbox.huleedu.gateway.settings import GatewaySettings
from outbox.huleedu.gateway.subscriptions import Subscriptions
from outbox.redis_server import RedisServer

_log = structlog.get_logger(__name__)


class Hub:
    """The audiences of this process, on one connection that subscribes.

    While Redis was away messages may have been missed: when it is back each socket is told
    `resync_required`. When it stays away for longer than the grace time, sockets are closed, since
    a browser that knows can ask elsewhere.
    """

    def __init__(self, settings: GatewaySettings, server: RedisServer) -> None:
        self._settings = settings
        self._audiences: dict[str, Audience] = {}
        self._patience: asyncio.TimerHandle | None = None
        self._interrupted = False
        self.subscriptions = Subscriptions(settings, server, self)
        self.news: asyncio.Queue[str | None] = asyncio.Queue()
        """Users who have sockets here, and whose tokens may have been revoked; None when Redis was lost."""

    async def join(self, user: str, listener: Listener) -> None:
        """Adds a socket; when this returns, every message published from now on reaches it.

        Raises `Unreachable` or TimeoutError while Redis cannot be reached. The caller must `leave`
        in any case.
        """
        channel = channel_of(user)
        audience = self._audiences.get(channel)
        if audience is None:
            audience = self._audiences[channel] = self._new_audience()
            self.subscriptions.subscribe(channel)
        audience.listeners.add(listener)
        metrics.USERS.set(len(self._audiences))
        await self.subscriptions.fence()

    def leave(self, user: str, listener: Listener) -> None:
        """Removes a socket. Safe to call twice."""
        channel = channel_of(user)
        audience = self._audiences.get(channel)
        if audience is None:
            return
        audience.listeners.discard(listener)
        if not audience.listeners:
            audience.close()
            del self._audiences[channel]
            self.subscriptions.unsubscribe(channel)
            metrics.USERS.set(len(self._audiences))

    def hear(self, channel: str, data: bytes) -> None:
        """Passes on what Redis delivered to the sockets of the user whose channel it is."""
        metrics.RECEIVED.inc()
        if (audience := self._audiences.get(channel)) is None:
            return
        try:
            audience.hear(data.decode())
        except UnicodeDecodeError:
            # A text frame cannot carry it.
            _log.warning("message.not_text", bytes=len(data))
            audience.fold()

    def hear_of_revocation(self, user: str) -> None:
        """Takes note that tokens of a user may have been revoked."""
        if channel_of(user) in self._audiences:
            self.news.put_nowait(user)

    def redis_came(self) -> None:
        """Takes note that subscriptions are in force; after an interruption each socket is owed a resync."""
        metrics.REDIS_UP.set(1)
        if self._patience:
            self._patience.cancel()
        if self._interrupted:
            for audience in self._audiences.values():
                # Spread, so that not every browser asks for the state at the same moment.
                delay = random.uniform(0.0, 2 * self._settings.resync_seconds)  # noqa: S311
                audience.owe_resync(delay, "redis")

    def redis_went(self) -> None:
        """Takes note that no message arrives any more; sockets are closed if that outlasts the grace time."""
        metrics.REDIS_UP.set(0)
        metrics.REDIS_LOST.inc()
        self._interrupted = True
        self.news.put_nowait(None)
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(self._settings.redis_grace_seconds, self._give_up)

    def _give_up(self) -> None:
        for audience in self._audiences.values():
            for listener in audience.listeners:
                listener.end(NO_UPDATES)

    def _new_audience(self) -> Audience:
        settings = self._settings
        now = asyncio.get_running_loop().time()
        bucket = TokenBucket(settings.messages_per_second, settings.messages_burst, now)
        return Audience(bucket, settings.resync_seconds)
