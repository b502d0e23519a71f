"""One open socket: what goes out and in what order, and why it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from outbox.huleedu.gateway import metrics
from outbox.huleedu.gateway.closing import CLAIMS, EXPIRED, REVOKED, TOO_SLOW, UNANSWERED, Close
from outbox.huleedu.gateway.limits import TokenBucket
from outbox.huleedu.gateway.missed import Missed, id_of
from outbox.huleedu.gateway.settings import GatewaySettings
from outbox.huleedu.gateway.tokens import Identity

_YEAR = 365 * 86_400

NOT_RECOVERED = '{"event":"resync_required","recovered":false}'
"""Tells a client that wanted to go on from a message that what came after it is not known."""
HEARTBEAT = '{"event":"heartbeat"}'
"""Tells a client that asked for it, and has heard nothing for a while, that the socket lives."""

CatchUp = Callable[[], Awaitable[Missed | None]]
"""Finds what a client missed, None where that is not known any more. When it returns, everything
that was published before has been offered too."""

Renew = Callable[[str], Awaitable[Identity | Close]]
"""Looks at a token that a client brings while its socket is open."""

_RENEWALS_PER_SECOND = 0.1


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a client asked for when it came, and may ask for later."""

    catch_up: CatchUp | None
    heartbeat: float | None
    """After so many seconds of silence it wants a sign of life."""
    renew: Renew


class SocketSession:
    """Writes to one socket what it is offered, until something ends it."""

    def __init__(
        self,
        connection: ServerConnection,
        identity: Identity,
        settings: GatewaySettings,
        wishes: Wishes,
    ) -> None:
        self.identity = identity
        self.frames = TokenBucket(
            settings.frames_per_second, settings.frames_burst, asyncio.get_running_loop().time()
        )
        """What the client may send, frames of any kind."""
        self._connection = connection
        self._settings = settings
        self._wishes = wishes
        self._loop = asyncio.get_running_loop()
        self._renewals = TokenBucket(_RENEWALS_PER_SECOND, 1, self._loop.time())
        self._expiry: asyncio.TimerHandle | None = None
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
        self._expire_with_the_token()
        try:
            async with asyncio.TaskGroup() as tasks:
                parts = [tasks.create_task(part) for part in (self._read(), self._write(), self._ping())]
                await self._over.wait()
                for part in parts:
                    part.cancel()
        except* ConnectionClosed:
            pass
        finally:
            if self._expiry:
                self._expiry.cancel()
        return self._close or self._closed_by_the_library()

    def _expire_with_the_token(self) -> None:
        if self._expiry:
            self._expiry.cancel()
        now = time.time()
        left = min(self.identity.expires_at + self._settings.jwt_leeway_seconds, now + _YEAR) - now
        self._expiry = self._loop.call_later(left, self.end, EXPIRED)

    async def answers(self, seconds: float) -> bool:
        """Returns whether the client answers a ping within this time: not if the network between is gone."""
        if self._connection.state is State.CONNECTING:
            return True
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(seconds):
                await (await self._connection.ping())
                return True
        return False

    def _closed_by_the_library(self) -> Close | None:
        """Returns the close frame that the library sent by itself, say for a message too large; else None."""
        protocol = self._connection.protocol
        if protocol.close_sent is None or protocol.close_rcvd_then_sent:
            return None
        return Close(protocol.close_sent.code, protocol.close_sent.reason)

    async def _read(self) -> None:
        while True:
            if (token := token_in(await self._connection.recv(decode=False))) is not None:
                await self._connection.send(json.dumps(await self._renew(token), separators=(",", ":")))

    async def _renew(self, token: str) -> Mapping[str, Any]:
        """Goes on with a new token if it is good, else with the old one; returns what the client is told."""
        if not self._renewals.take(self._loop.time()):
            return _refused("often")
        found = await self._wishes.renew(token)
        if found == REVOKED:
            self.end(REVOKED)  # The older one is, too.
        if isinstance(found, Close):
            return _refused(found.reason if found.code == EXPIRED.code else "unavailable")
        if found.user != self.identity.user:
            self.end(CLAIMS)
            return _refused(CLAIMS.reason)
        self.identity = found
        self._expire_with_the_token()
        metrics.RENEWALS.labels("accepted").inc()
        return {"event": "token_accepted", "expires_at": found.expires_at}

    async def _write(self) -> None:
        if self._wishes.catch_up is not None:
            await self._bring(await self._wishes.catch_up())
        while True:
            try:
                async with asyncio.timeout(self._wishes.heartbeat):
                    text, since = await self._queue.get()
            except TimeoutError:
                await self._connection.send(HEARTBEAT)
            else:
                await self._send(text, since)

    async def _bring(self, missed: Missed | None) -> None:
        if missed is None:
            metrics.RESYNCS.labels("unknown").inc()
            await self._connection.send(NOT_RECOVERED)
            return
        await self._connection.send(f'{{"event":"resumed","recovered":true,"missed":{len(missed.texts)}}}')
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


def token_in(frame: bytes) -> str | None:
    """Returns the token that a client brings in `{"token": "…"}`; None for whatever else it sends."""
    if b'"token"' not in frame:
        return None
    try:
        said = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    token = said.get("token") if isinstance(said, dict) else None
    return token if isinstance(token, str) else None


def _refused(reason: str) -> Mapping[str, str]:
    metrics.RENEWALS.labels(reason).inc()
    return {"event": "token_refused", "reason": reason}
