"""The Result Aggregator Service as a process: what it consumes, and what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sqlalchemy import text
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from outbox.errors import describe
from outbox.huleedu.database import DATABASE_ERRORS
from outbox.huleedu.ras.api import application
from outbox.huleedu.ras.metrics import CONSUMER, REGISTRY
from outbox.huleedu.ras.record import HANDLERS
from outbox.huleedu.ras.settings import RasSettings
from outbox.huleedu.service import Service, probes
from outbox.huleedu.service import serve as run
from outbox.logs import configure_logging


class Ras(Service):
    """`async with Ras(settings) as ras:` keeps what events say and answers at `ras.port`."""

    settings: RasSettings

    def __init__(self, settings: RasSettings) -> None:
        super().__init__(settings, HANDLERS, CONSUMER)

    def application(self) -> ASGIApp:
        """The API and the probes."""
        api = application(self.settings, self.engine)
        return Starlette(routes=[*probes(self._trouble, REGISTRY), Mount("", api)])

    async def _trouble(self) -> Mapping[str, str]:
        """It can answer as long as its database does, be it with what it knew."""
        try:
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except DATABASE_ERRORS as error:
            return {"database": describe(error)}
        return {}


async def serve(settings: RasSettings) -> None:
    """Run RAS until SIGTERM or SIGINT."""
    await run(Ras(settings))


def main(settings: RasSettings) -> None:
    """Run RAS as this process: logs to stderr, ends on SIGTERM."""
    configure_logging(settings)
    asyncio.run(serve(settings))
