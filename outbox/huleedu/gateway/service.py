"""The gateway as a whole: what it serves, how it starts, and its slow end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Self, cast

import structlog
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as listen
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from outbox.huleedu.gateway import metrics
from outbox.huleedu.gateway.addresses import Addresses
from outbox.huleedu.gateway.closing import GOING_AWAY, TOO_MANY, Close
from outbox.huleedu.gateway.connection import Socket
from outbox.huleedu.gateway.door import Door
from outbox.huleedu.gateway.files import connections_for
from outbox.huleedu.gateway.hub import Hub
from outbox.huleedu.gateway.newcomers import Newcomers
from outbox.huleedu.gateway.session import SocketSession
from outbox.huleedu.gateway.settings import GatewaySettings
from outbox.huleedu.gateway.tokens import BEARER, Tokens
from outbox.process import serve
from outbox.redis_server import RedisServer
from outbox.web.listen import bound
from outbox.web.probes import ProbeAnswer, livez, metrics_of, readyz

_BACKLOG = 128
"""So many connections may be taken before the first of them is looked at."""
_FAREWELL_SECONDS = 2.0
_log = structlog.get_logger(__name__)

_library_log = logging.getLogger("outbox.huleedu.gateway.websockets")
# At level debug the library writes down every request, and tokens with it.
_library_log.setLevel(logging.WARNING)


class Gateway:
    """Serves `/ws`, and for machines `/livez`, `/readyz` and `/metrics`.

    `async with Gateway(settings) as gateway:` listens on `gateway.port`; at the end it closes
    every socket with 1001, spread over `drain_seconds`.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._tokens = Tokens(settings)
        server = RedisServer.of(
            settings.redis_url.get_secret_value(),
            protocol=2,
            socket_connect_timeout=settings.redis_timeout_seconds,
        )
        self._hub = Hub(settings, server)
        self._door = Door(settings, self._tokens, self._hub, server)
        self._newcomers = Newcomers(settings.unauthenticated, settings.unauthenticated_per_address)
        self._sockets: set[Socket] = set()
        """Those with a handler; the library does not tell of those that it is closing."""
        self._addresses = Addresses(settings.trusted_proxies)
        self._work = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: Server

    @property
    def port(self) -> int:
        """The port on which it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def ready(self) -> bool:
        """True if sockets that come now hear what is published."""
        return all(self._checks().values())

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._door.connections = connections_for(settings.connections, settings.unauthenticated)
        self._server = await self._listen()
        await self._work.__aenter__()
        self._tasks = [
            self._work.create_task(self._hub.subscriptions.run()),
            self._work.create_task(self._tokens.keys.run()),
            self._work.create_task(self._door.run()),
            self._work.create_task(self._door.reads.run()),
        ]
        _log.info("service.started", host=settings.host, port=self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drain()
        for task in self._tasks:
            task.cancel()
        await self._work.__aexit__(None, None, None)
        await self._door.reads.close()
        _log.info("service.stopped")

    async def _listen(self) -> Server:
        settings = self._settings
        return await listen(
            self._handle,
            sock=bound(settings.host, settings.port, f"{settings.prefix}PORT"),
            select_subprotocol=_select_subprotocol,
            process_request=self._answer,
            process_response=self._receive,
            create_connection=partial(Socket, self._newcomers, self._addresses),  # type: ignore[arg-type]  # called, never looked at
            backlog=_BACKLOG,
            # Notifications are small, and each compressing socket would cost some 100 KB.
            compression=None,
            max_size=settings.frame_bytes,
            open_timeout=settings.open_timeout_seconds,
            close_timeout=settings.close_timeout_seconds,
            # We ping ourselves: the library has another close code for silence.
            ping_interval=None,
            server_header=None,
            logger=_library_log,
        )

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        match request.path.partition("?")[0]:
            case "/ws":
                return self._refuse_origin(cast("Socket", connection), request)
            case "/livez":
                return _response(livez())
            case "/readyz":
                return _response(self._readiness())
            case "/metrics":
                return _response(metrics_of(metrics.REGISTRY, request.headers.get("Accept")))
            case _:
                return connection.respond(HTTPStatus.NOT_FOUND, "not found\n")

    def _refuse_origin(self, socket: Socket, request: Request) -> Response | None:
        """Answers 403 to the pages of others; programs that are no browsers send no Origin."""
        allowed = self._settings.allowed_origins
        origins = request.headers.get_all("Origin")
        if not origins or "*" in allowed or (len(origins) == 1 and origins[0] in allowed):
            return None
        metrics.ORIGINS_REFUSED.inc()
        client = self._addresses.client(socket.peer, request)
        _log.warning("websocket.origin_refused", origin=", ".join(origins)[:200], client=client)
        return socket.respond(HTTPStatus.FORBIDDEN, "this origin may not connect\n")

    def _checks(self) -> dict[str, bool]:
        return {"redis": self._hub.subscriptions.up, "keys": self._tokens.keys.ready}

    def _readiness(self) -> ProbeAnswer:
        checks = self._checks()
        trouble = {
            "redis": self._hub.subscriptions.trouble,
            "keys": "none is known yet, so no token can be checked",
        }
        return readyz([f"{name}: {trouble[name]}" for name, well in checks.items() if not well], **checks)

    async def _receive(self, connection: ServerConnection, request: Request, response: Response) -> None:
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return
        socket = cast("Socket", connection)
        client = self._addresses.client(socket.peer, request)
        structlog.contextvars.bind_contextvars(connection=str(socket.id), client=client)
        if client != socket.peer and not self._newcomers.belongs_to(socket, client):
            socket.admission = TOO_MANY
            return
        await self._door.receive(socket, request)
        if isinstance(socket.admission, SocketSession):
            self._newcomers.remove(socket)

    async def _handle(self, connection: ServerConnection) -> None:
        socket = cast("Socket", connection)
        self._sockets.add(socket)
        try:
            await self._attend(socket)
        finally:
            self._sockets.discard(socket)

    async def _attend(self, socket: Socket) -> None:
        match socket.admission:
            case SocketSession() as session:
                await self._serve(socket, session)
            case Close() as refusal:
                metrics.REFUSED.labels(refusal.code).inc()
                _log.info("websocket.refused", code=refusal.code, reason=refusal.reason)
                await socket.shut(refusal)

    async def _serve(self, socket: Socket, session: SocketSession) -> None:
        began = time.monotonic()
        metrics.OPENED.inc()
        _log.info("websocket.opened")
        try:
            close = await session.run()
        finally:
            self._door.leave(session)
        if close is not None:
            await socket.shut(close)
        metrics.CLOSED.labels(close.code if close else "client").inc()
        reason = close.reason if close else "closed by the client"
        seconds = round(time.monotonic() - began, 3)
        _log.info("websocket.closed", code=socket.close_code, reason=reason, seconds=seconds)

    async def _drain(self) -> None:
        self._door.closed = True
        _log.info("gateway.draining", connections=len(self._door.sessions))
        loop = asyncio.get_running_loop()
        for session in self._door.sessions:
            loop.call_later(random.uniform(0.0, self._settings.drain_seconds), session.end, GOING_AWAY)  # noqa: S311
        self._server.close(close_connections=False)
        self._newcomers.cut_off()
        cut_off = loop.call_later(self._settings.drain_seconds + _FAREWELL_SECONDS, self._cut_off)
        await self._server.wait_closed()
        cut_off.cancel()

    def _cut_off(self) -> None:
        for socket in self._sockets:
            socket.cut_off()


def _select_subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    # A token stands beside it, and must not be answered.
    return Subprotocol(BEARER) if BEARER in offered else None


def _response(answer: ProbeAnswer) -> Response:
    headers = {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
    }
    return Response(answer.status, answer.status.phrase, Headers(headers), answer.body)


def main(settings: GatewaySettings) -> None:
    """Runs a gateway as this process, until it is told to stop."""
    serve(Gateway, settings)
