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
from outbox.huleedu.page.tokens import Bearers
from outbox.process import serve
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
            bearers = Bearers(settings)
            keys = asyncio.create_task(bearers.keys.run())
            exits.callback(keys.cancel)
            app = application(settings, engine, ras, bearers)
            self.port = await exits.enter_async_context(
                listening(app, settings.host, settings.port, variable="PAGE_PORT")
            )
            self._exits = exits.pop_all()
        _log.info("service.started", host=settings.host, port=self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()
        _log.info("service.stopped")


def main(settings: PageSettings) -> None:
    """Serves the page as this process, until it is told to stop."""
    serve(Page, settings)
