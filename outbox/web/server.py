"""`/livez`, `/readyz` and `/metrics`, served by uvicorn within the relay's loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette

from outbox.observe import REGISTRY, SinkHealth, emit
from outbox.settings import Settings
from outbox.web.gauges import set_gauges
from outbox.web.listen import listening
from outbox.web.probes import ProbeAnswer, probes, readyz
from outbox.web.readiness import Watched, Watcher


def application(relay: Watched, settings: Settings) -> Starlette:
    """Makes an application of one relay's probes and metrics; a service may mount it among its own."""
    watcher = Watcher(relay, settings)

    async def ready() -> ProbeAnswer:
        found = await watcher.look()
        return readyz(found.reasons, sinks=list(map(_sink, found.health.sinks)))

    async def measure() -> None:
        set_gauges(await watcher.look())

    return Starlette(routes=probes(ready, REGISTRY, measure))


@asynccontextmanager
async def serving(relay: Watched, settings: Settings) -> AsyncIterator[int]:
    """Serves the probes and metrics of one relay within the block; gives the port.

    Raises `SettingsError` where the address cannot be had.
    """
    app = application(relay, settings)
    async with listening(app, settings.http_host, settings.http_port, variable="OUTBOX_HTTP_PORT") as port:
        emit("http.listening", host=settings.http_host, port=port)
        yield port


def _sink(sink: SinkHealth) -> dict[str, Any]:
    return {
        "sink": sink.sink,
        "lanes": len(sink.lanes),
        "open_breakers": len(sink.open_breakers),
        "quiet_seconds": round(sink.quiet_seconds, 3),
    }
