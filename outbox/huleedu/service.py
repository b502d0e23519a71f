"""What ELS and RAS have in common: a consumer and HTTP on one database, started and stopped together."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Self

import structlog
from starlette.types import ASGIApp

from outbox.huleedu.consume import Chore, Consumer, ConsumerMetrics, ConsumerSettings, Handler, Receiver
from outbox.huleedu.database import engine_of
from outbox.web.listen import listening

_log = structlog.get_logger(__name__)


class Service(ABC):
    """`async with` it: within the block it consumes, and serves HTTP on `port`.

    At the end the events under way are finished and their offsets committed.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        handlers: Sequence[Handler[Any]],
        metrics: ConsumerMetrics,
        chores: Sequence[Chore] = (),
    ) -> None:
        self.settings = settings
        self.engine = engine_of(settings)
        self.receiver = Receiver(self.engine, settings.kafka_group, handlers, metrics)
        self.consumer = Consumer(settings, self.engine, self.receiver, metrics, chores)
        self.port = 0
        """Where it listens."""
        self._running: AbstractAsyncContextManager[int] | None = None

    def beside(self) -> AbstractAsyncContextManager[object]:
        """Makes what lives beside the consumer, on the same connections."""
        return nullcontext()

    @abstractmethod
    def application(self) -> ASGIApp:
        """Makes what the service answers over HTTP."""

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
                self.beside(),
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
