"""Who may open a socket: token, limits, subscription, in this order and before the handshake is answered.

So when a client hears that its socket is open, its messages arrive already. Who is refused gets
an open socket that is closed with a code at once, since a browser cannot see why a handshake failed.
"""

from __future__ import annotations

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
from outbox.huleedu.gateway.limits import Capacity
from outbox.huleedu.gateway.missed import Missed, RecentMessages
from outbox.huleedu.gateway.session import SocketSession
from outbox.huleedu.gateway.settings import GatewaySettings
from outbox.huleedu.gateway.subscriptions import Unreachable
from outbox.huleedu.gateway.tokens import Identity, Tokens, find_token, query

_log = structlog.get_logger(__name__)


class Door:
    """Lets sockets in, and knows who is."""

    def __init__(self, settings: GatewaySettings, tokens: Tokens, hub: Hub, recent: RecentMessages) -> None:
        self.sessions: set[SocketSession] = set()
        self.closed = False
        """Whether nobody may come in any more."""
        self._settings = settings
        self._tokens = tokens
        self._hub = hub
        self._recent = recent
        self._capacity = Capacity(settings.connections, settings.connections_per_user)

    async def receive(self, socket: Socket, request: Request) -> None:
        """Gives the socket its session, or the reason for its refusal."""
        structlog.contextvars.bind_contextvars(connection=str(socket.id))
        try:
            socket.admission = await self._admit(socket, request)
        except Exception:  # noqa: BLE001 (a browser must see a code, whatever went wrong)
            _log.exception("websocket.failed")
            socket.admission = closing.INTERNAL

    async def _admit(self, socket: Socket, request: Request) -> SocketSession | Close:
        identity = await self._identify(request)
        if isinstance(identity, Close):
            return identity
        structlog.contextvars.bind_contextvars(user_id=identity.user)
        if self.closed or socket.state is not State.CONNECTING:
            return closing.GOING_AWAY
        if refusal := self._capacity.refusal(identity.user):
            return refusal
        session = self._seat(socket, identity, query(request, "last_message_id"))
        try:
            await self._hub.join(identity.user, session)
        except (Unreachable, TimeoutError):
            self.leave(session)
            return closing.NO_UPDATES
        return session

    async def _identify(self, request: Request) -> Identity | Close:
        if (token := find_token(request)) is None:
            return closing.NO_TOKEN
        try:
            return await self._tokens.identify(token)
        except KeysUnavailable:
            return closing.NO_KEYS
        except jwt.ExpiredSignatureError:
            return closing.EXPIRED
        except jwt.PyJWTError as error:
            # Its text may quote the token.
            _log.info("token.refused", reason=type(error).__name__)
            return closing.REFUSED

    def _seat(self, socket: Socket, identity: Identity, last_message_id: str | None) -> SocketSession:
        catch_up = partial(self._missed, identity.user, last_message_id) if last_message_id else None
        session = SocketSession(socket, identity, self._settings, catch_up)
        socket.farewell = partial(self.leave, session)
        self._capacity.take(identity.user)
        self.sessions.add(session)
        metrics.CONNECTIONS.inc()
        return session

    def leave(self, session: SocketSession) -> None:
        """Forgets a session. Safe to call twice."""
        if session not in self.sessions:
            return
        self.sessions.discard(session)
        self._capacity.give_back(session.identity.user)
        self._hub.leave(session.identity.user, session)
        metrics.CONNECTIONS.dec()

    async def _missed(self, user: str, last_message_id: str) -> Missed | None:
        try:
            missed = await self._recent.since(user, last_message_id)
            await self._hub.subscriptions.fence()
        except (RedisError, OSError, TimeoutError, Unreachable, LookupError, ValueError) as error:
            _log.warning("catch_up.failed", reason=type(error).__name__)
            return None
        return missed
