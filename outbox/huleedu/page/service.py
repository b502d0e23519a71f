"""The page's server as a whole: how it starts and ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Self

import structlog

from outbox.huleedu.database import engine_of
from outbox.huleedu.page.app import application
from outbox.huleedu.page.settings import PageSettings
from outbox.huleedu.page.status import ras_client
from outbox.huleedu.service import serve as run
from outbox.logs import configure_logging
from outbox.web.listen import listening

_log = structlog.get_logger(__name__)


class Page:
    """`async with Page(settings) as page:` serves it at `page.port`."""

    def __init__(self, settings: PageSettings) -> None:
        self.settings = settings
        self.port = 0
        """Where it listens."""
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self.settings
        async with AsyncExitStack() as exits:
            engine = engine_of(settings)
            exits.push_async_callback(engine.dispose)
            ras = await exits.enter_async_context(ras_client(settings))
            app = application(settings, engine, ras)
            self.port = await exits.enter_async_context(
                listening(app, settings.host, settings.port, variable="PAGE_PORT")
            )
            self._exits = exits.pop_all()
        _log.info("service.started", host=settings.host, port=self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()
        _log.info("service.stopped")


async def serve(settings: PageSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    await run(Page(settings))


def main(settings: PageSettings) -> None:
    """Serve as this process: logs to stderr, ends on SIGTERM."""
    configure_logging(settings)
    asyncio.run(serve(settings))
