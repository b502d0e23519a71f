"""`/livez`, `/readyz` and `/metrics`, served by uvicorn within the relay's loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from outbox.observe import REGISTRY, emit
from outbox.settings import Settings
from outbox.web.gauges import set_gauges
from outbox.web.listen import listening
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
    app = application(relay, settings)
    async with listening(app, settings.http_host, settings.http_port, variable="OUTBOX_HTTP_PORT") as port:
        emit("http.listening", host=settings.http_host, port=port)
        yield port


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
