"""What ELS and RAS have in common: a consumer and HTTP on one database, started and stopped together."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from outbox.huleedu.consume import Consumer, ConsumerMetrics, ConsumerSettings, Handler, Receiver
from outbox.huleedu.database import engine_of
from outbox.web.listen import listening

_log = structlog.get_logger(__name__)


class Service(ABC):
    """`async with` it: within the block it consumes, and serves HTTP on `port`.

    At the end the events under way are finished and their offsets committed.
    """

    def __init__(
        self, settings: ConsumerSettings, handlers: Sequence[Handler[Any]], metrics: ConsumerMetrics
    ) -> None:
        self.settings = settings
        self.engine = engine_of(settings)
        self.receiver = Receiver(self.engine, settings.kafka_group, handlers, metrics)
        self.consumer = Consumer(settings, self.engine, self.receiver, metrics)
        self.port = 0
        """Where it listens."""
        self._running: AbstractAsyncContextManager[int] | None = None

    @abstractmethod
    def application(self) -> ASGIApp:
        """What it serves over HTTP."""

    async def __aenter__(self) -> Self:
        self._running = self._run()
        self.port = await self._running.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        # In good order, whatever has ended the block.
        if self._running:
            await self._running.__aexit__(None, None, None)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[int]:
        settings = self.settings
        variable = f"{settings.prefix}PORT"
        try:
            async with (
                listening(self.application(), settings.host, settings.port, variable=variable) as port,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(self.consumer.run())
                _log.info("service.started", host=settings.host, port=port)
                yield port
                self.consumer.stop()
        finally:
            await self.engine.dispose()
            _log.info("service.stopped")


def probes(ready: Callable[[], Awaitable[Mapping[str, str]]], registry: CollectorRegistry) -> list[Route]:
    """`/livez`, `/readyz` and `/metrics`; `ready` says what is in the way, by what it is, or nothing."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        trouble = await ready()
        return JSONResponse({"ready": not trouble, "reasons": trouble}, status_code=503 if trouble else 200)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]


async def serve(service: AbstractAsyncContextManager[object]) -> None:
    """Run it until SIGTERM or SIGINT; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def stopping() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in signals:
        loop.add_signal_handler(number, stopping)
    async with service:
        await stop.wait()
