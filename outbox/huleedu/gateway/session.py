"""One open socket: what goes out and in what order, and why it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from outbox.huleedu.gateway import metrics
from outbox.huleedu.gateway.audience import RESYNC_REQUIRED
from outbox.huleedu.gateway.closing import EXPIRED, TOO_SLOW, UNANSWERED, Close
from outbox.huleedu.gateway.limits import TokenBucket
from outbox.huleedu.gateway.missed import Missed, id_of
from outbox.huleedu.gateway.settings import GatewaySettings
from outbox.huleedu.gateway.tokens import Identity

_YEAR = 365 * 86_400

CatchUp = Callable[[], Awaitable[Missed | None]]
"""Finds what a client missed, None where that is not known any more. When it returns, everything
that was published before has been offered too."""


class SocketSession:
    """Writes to one socket what it is offered, until something ends it."""

    def __init__(
        self,
        connection: ServerConnection,
        identity: Identity,
        settings: GatewaySettings,
        catch_up: CatchUp | None,
    ) -> None:
        self.identity = identity
        self.frames = TokenBucket(
            settings.frames_per_second, settings.frames_burst, asyncio.get_running_loop().time()
        )
        """What the client may send, frames of any kind."""
        self._connection = connection
        self._settings = settings
        self._catch_up = catch_up
        self._loop = asyncio.get_running_loop()
        self._close: Close | None = None
        self._over = asyncio.Event()
        self._queue: asyncio.Queue[tuple[str, float]] = asyncio.Queue(settings.queue_messages)

    def offer(self, text: str) -> None:
        """Sends this text after what waits already. A socket that lags too far behind is ended."""
        try:
            self._queue.put_nowait((text, self._loop.time()))
        except asyncio.QueueFull:
            self.end(TOO_SLOW)

    def end(self, close: Close) -> None:
        """Closes the socket; of several reasons the first counts."""
        self._close = self._close or close
        self._over.set()

    async def run(self) -> Close | None:
        """Serves the socket until it ends, at the latest when its token expires.

        Returns why it is to be closed, or has been by the library; None when the client did that.
        """
        now = time.time()
        left = min(self.identity.expires_at + self._settings.jwt_leeway_seconds, now + _YEAR) - now
        expiry = self._loop.call_later(left, self.end, EXPIRED)
        try:
            async with asyncio.TaskGroup() as tasks:
                parts = [tasks.create_task(part) for part in (self._read(), self._write(), self._ping())]
                await self._over.wait()
                for part in parts:
                    part.cancel()
        except* ConnectionClosed:
            pass
        finally:
            expiry.cancel()
        return self._close or self._closed_by_the_library()

    def _closed_by_the_library(self) -> Close | None:
        """Returns the close frame that the library sent by itself, say for a message too large; else None."""
        protocol = self._connection.protocol
        if protocol.close_sent is None or protocol.close_rcvd_then_sent:
            return None
        return Close(protocol.close_sent.code, protocol.close_sent.reason)

    async def _read(self) -> None:
        while True:
            await self._connection.recv(decode=False)

    async def _write(self) -> None:
        if self._catch_up is not None:
            await self._bring(await self._catch_up())
        while True:
            await self._send(*await self._queue.get())

    async def _bring(self, missed: Missed | None) -> None:
        if missed is None:
            metrics.RESYNCS.labels("unknown").inc()
            await self._connection.send(RESYNC_REQUIRED)
            return
        for text in missed.texts:
            await self._connection.send(text)
        metrics.CAUGHT_UP.inc(len(missed.texts))
        for _ in range(self._queue.qsize()):
            text, since = self._queue.get_nowait()
            if id_of(text) not in missed.known:
                await self._send(text, since)

    async def _send(self, text: str, since: float) -> None:
        await self._connection.send(text)
        metrics.SENT.inc()
        metrics.DELAY.observe(self._loop.time() - since)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._settings.ping_interval_seconds)
            try:
                async with asyncio.timeout(self._settings.ping_timeout_seconds):
                    await (await self._connection.ping())
            except TimeoutError:
                self.end(UNANSWERED)
