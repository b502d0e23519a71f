"""Who may open a socket: token, limits, revocation, subscription, in this order.

All before the handshake is answered: when a client hears that its socket is open, its messages come already.
Who is refused gets an open socket that is closed with a code at once, since a browser cannot see why a
handshake failed.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from contextlib import suppress
from functools import partial

import jwt
import structlog
from redis.exceptions import RedisError
from websockets.http11 import Request
from websockets.protocol import State

from outbox.huleedu.gateway import closing, metrics
from outbox.huleedu.gateway.closing import Close
from outbox.huleedu.gateway.connection import Socket
from outbox.huleedu.gateway.hub import Hub
from outbox.huleedu.gateway.keys import KeysUnavailable
from outbox.huleedu.gateway.missed import Missed, RecentMessages
from outbox.huleedu.gateway.reads import Reads
from outbox.huleedu.gateway.revoked import Revocations
from outbox.huleedu.gateway.session import SocketSession, Wishes
from outbox.huleedu.gateway.settings import GatewaySettings
from outbox.huleedu.gateway.subscriptions import Unreachable
from outbox.huleedu.gateway.tokens import Identity, Tokens, find_token, query, refusal_of
from outbox.redis_server import RedisServer

_ANSWER_SECONDS = 2.0
"""A socket that does not answer a ping within this time gives way to a new one."""
_SHORTEST_HEARTBEAT = 1.0
_UNREACHABLE = (RedisError, OSError, TimeoutError, Unreachable)
_log = structlog.get_logger(__name__)


class Door:
    """Lets sockets in, knows who is, and shows out whose token was revoked."""

    def __init__(self, settings: GatewaySettings, tokens: Tokens, hub: Hub, server: RedisServer) -> None:
        self.connections = settings.connections
        """How many sockets may be open."""
        self.sessions: set[SocketSession] = set()
        self.closed = False
        """Whether nobody may come in any more."""
        self._settings = settings
        self._tokens = tokens
        self._hub = hub
        self.reads = Reads(server, settings.redis_timeout_seconds)
        self._recent = RecentMessages(self.reads, hub.subscriptions.probe)
        self._revocations = Revocations(self.reads)
        self._of: defaultdict[str, dict[SocketSession, None]] = defaultdict(dict)
        """Each user's, the oldest first."""

    async def receive(self, socket: Socket, request: Request) -> None:
        """Gives the socket its session, or the reason for its refusal."""
        try:
            socket.admission = await self._admit(socket, request)
        except Exception:  # noqa: BLE001 (a browser must see a code, whatever went wrong)
            _log.exception("websocket.failed")
            socket.admission = closing.INTERNAL

    async def run(self) -> None:
        """Ends the sockets whose tokens are revoked, and connections to a Redis that was lost, for ever."""
        while True:
            user = await self._hub.news.get()
            if user is None:
                await self.reads.forget()
                continue
            for session in list(self._of.get(user, ())):
                # It is looked at again when the token is renewed, at the latest.
                with suppress(*_UNREACHABLE):
                    if await self._revocations.cover(session.identity):
                        session.end(closing.REVOKED)

    async def _admit(self, socket: Socket, request: Request) -> SocketSession | Close:
        token = find_token(request)
        identity = closing.SIGNATURE if token is None else await self._identify(token)
        if isinstance(identity, Close):
            return identity
        structlog.contextvars.bind_contextvars(user_id=identity.user)
        if refusal := await self._full(identity.user):
            return refusal
        if self.closed or socket.state is not State.CONNECTING:
            return closing.GOING_AWAY
        session = self._seat(socket, identity, request)
        refusal = await self._revoked(identity) or await self._join(session)
        if refusal:
            self.leave(session)
        return refusal or session

    async def _identify(self, token: str) -> Identity | Close:
        try:
            return await self._tokens.identify(token)
        except KeysUnavailable:
            return closing.NO_KEYS
        except jwt.PyJWTError as error:
            # Its text may quote the token.
            _log.info("token.refused", reason=type(error).__name__)
            return refusal_of(error)

    async def _full(self, user: str) -> Close | None:
        """Returns why this user may not open one more socket; those that are dead give way."""
        if len(self.sessions) >= self.connections:
            return closing.OVERLOADED
        if len(self._of.get(user, ())) < self._settings.connections_per_user:
            return None
        there = list(self._of[user])
        lives = await asyncio.gather(*(session.answers(_ANSWER_SECONDS) for session in there))
        for session, is_alive in zip(there, lives, strict=True):
            if not is_alive:
                session.end(closing.UNANSWERED)
                self.leave(session)
        return (
            closing.TOO_MANY if len(self._of.get(user, ())) >= self._settings.connections_per_user else None
        )

    async def _revoked(self, identity: Identity) -> Close | None:
        try:
            return closing.REVOKED if await self._revocations.cover(identity) else None
        except _UNREACHABLE:
            return closing.NO_UPDATES

    async def _join(self, session: SocketSession) -> Close | None:
        if session not in self.sessions:
            return closing.GOING_AWAY  # The client is gone, or has given way.
        try:
            await self._hub.join(session.identity.user, session)
        except (Unreachable, TimeoutError):
            return closing.NO_UPDATES
        return None

    async def _renew(self, token: str) -> Identity | Close:
        found = await self._identify(token)
        return found if isinstance(found, Close) else await self._revoked(found) or found

    def _seat(self, socket: Socket, identity: Identity, request: Request) -> SocketSession:
        last = query(request, "last_message_id")
        catch_up = None if last is None else partial(self._missed, identity.user, last)
        wishes = Wishes(catch_up, _heartbeat(request), self._renew)
        session = SocketSession(socket, identity, self._settings, wishes)
        socket.farewell = partial(self.leave, session)
        self._of[identity.user][session] = None
        self.sessions.add(session)
        metrics.CONNECTIONS.inc()
        return session

    def leave(self, session: SocketSession) -> None:
        """Forgets a session. Safe to call twice."""
        if session not in self.sessions:
            return
        self.sessions.discard(session)
        user = session.identity.user
        del self._of[user][session]
        if not self._of[user]:
            del self._of[user]
        self._hub.leave(user, session)
        metrics.CONNECTIONS.dec()

    async def _missed(self, user: str, last_message_id: str) -> Missed | None:
        try:
            missed = await self._recent.since(user, last_message_id)
            await self._hub.subscriptions.fence()
        except (*_UNREACHABLE, LookupError, ValueError) as error:
            _log.warning("catch_up.failed", reason=type(error).__name__)
            return None
        return missed


def _heartbeat(request: Request) -> float | None:
    try:
        seconds = float(query(request, "heartbeat") or "")
    except ValueError:
        return None
    # NaN is neither less nor more than anything: a timer with it is always due, and confuses all others.
    return max(seconds, _SHORTEST_HEARTBEAT) if math.isfinite(seconds) else None
