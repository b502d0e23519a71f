"""`/livez`, `/readyz` and `/metrics`, served by uvicorn within the relay's loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette

from outbox.health import SinkHealth
from outbox.observe import REGISTRY, emit
from outbox.settings import Settings
from outbox.web.counting import Counting
from outbox.web.gauges import set_queue_gauges, set_relay_gauges
from outbox.web.listen import listening
from outbox.web.probes import ProbeAnswer, probes, readyz
from outbox.web.readiness import Watched, reasons


def application(relay: Watched, counting: Counting, stall_after: float) -> Starlette:
    """Makes an application of one relay's probes and metrics; none of its answers waits for anything."""

    async def ready() -> ProbeAnswer:
        health = relay.health()
        return readyz(reasons(health, stall_after), sinks=list(map(_sink, health.sinks)))

    async def measure() -> None:
        health = relay.health()
        set_relay_gauges(health, ready=not reasons(health, stall_after))
        if counted := counting.last():
            set_queue_gauges(*counted, served=[each.sink for each in health.sinks])

    return Starlette(routes=probes(ready, REGISTRY, measure))


@asynccontextmanager
async def serving(relay: Watched, settings: Settings) -> AsyncIterator[int]:
    """Serves the probes and metrics of one relay within the block; gives the port.

    Raises `SettingsError` where the address cannot be had.
    """
    counting = Counting(settings)
    app = application(relay, counting, settings.stall_after_seconds)
    async with listening(app, settings.http_host, settings.http_port, variable="OUTBOX_HTTP_PORT") as port:
        emit("http.listening", host=settings.http_host, port=port)
        task = asyncio.create_task(counting.run(), name="outbox count")
        try:
            yield port
        finally:
            task.cancel()
            await asyncio.wait([task])


def _sink(sink: SinkHealth) -> dict[str, Any]:
    return {
        "sink": sink.sink,
        "lanes": len(sink.lanes),
        "open_breakers": len(sink.open_breakers),
        "quiet_seconds": round(sink.quiet_seconds, 3),
        "in_vain_seconds": round(sink.in_vain[0], 3),
    }
