"""`/livez`, `/readyz` and `/metrics`, served by uvicorn within the relay's loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from outbox.errors import SettingsError
from outbox.observe import REGISTRY, emit
from outbox.settings import Settings
from outbox.web.gauges import set_gauges
from outbox.web.readiness import Readiness, Watched, Watcher


def application(relay: Watched, settings: Settings) -> Starlette:
    """The routes, for one relay; a service may mount them among its own."""
    watcher = Watcher(relay, settings)

    async def livez(_: Request) -> Response:
        # Who hears this knows that the loop turns: the pumps run in the same one.
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        found = await watcher.look()
        return JSONResponse(_told(found), status_code=503 if found.reasons else 200)

    async def metrics(request: Request) -> Response:
        set_gauges(await watcher.look())
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(REGISTRY), media_type=content_type)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])


@asynccontextmanager
async def serving(relay: Watched, settings: Settings) -> AsyncIterator[int]:
    """Serve them within the block; gives the port.

    Raises `SettingsError` where the address cannot be had.
    """
    with _listening(settings) as listener:
        server = _Server(
            uvicorn.Config(
                application(relay, settings),
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        task = asyncio.create_task(server.serve(sockets=[listener]), name="outbox http")
        port: int = listener.getsockname()[1]
        emit("http.listening", host=settings.http_host, port=port)
        try:
            yield port
        finally:
            server.should_exit = True
            await task


class _Server(uvicorn.Server):
    """Signals are the relay's business."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listening(settings: Settings) -> socket.socket:
    address = (settings.http_host, settings.http_port)
    try:
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server(address, family=family)
    except OSError as error:
        raise SettingsError(
            f"OUTBOX_HTTP_PORT={address[1]}: cannot listen on {address[0]}: {error.strerror or error}; "
            "choose another one, or 0 for any that is free"
        ) from error


def _told(found: Readiness) -> dict[str, Any]:
    return {
        "ready": not found.reasons,
        "reasons": found.reasons,
        "sinks": [
            {
                "sink": sink.sink,
                "lanes": len(sink.lanes),
                "open_breakers": len(sink.open_breakers),
                "quiet_seconds": round(sink.quiet_seconds, 3),
            }
            for sink in found.health.sinks
        ],
    }
