"""The Result Aggregator Service as a process: what it consumes, and what it answers."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.types import ASGIApp

from outbox.huleedu.consume import pruning
from outbox.huleedu.database import trouble_with
from outbox.huleedu.ras.api import application
from outbox.huleedu.ras.metrics import CONSUMER, REGISTRY
from outbox.huleedu.ras.record import HANDLERS, forget_names
from outbox.huleedu.ras.settings import RasSettings
from outbox.huleedu.service import Service
from outbox.process import serve
from outbox.web.probes import ProbeAnswer, probes, readyz


class Ras(Service):
    """`async with Ras(settings) as ras:` keeps what events say and answers at `ras.port`."""

    settings: RasSettings

    def __init__(self, settings: RasSettings) -> None:
        chores = (pruning("forget names", settings.names_retention, forget_names),)
        super().__init__(settings, HANDLERS, CONSUMER, chores)

    def application(self) -> ASGIApp:
        """Returns the API and the probes."""
        api = application(self.settings, self.engine)
        app = Starlette(routes=probes(self._ready, REGISTRY))
        # Not by a Mount, which leaves out paths with the end of a line in them.
        app.router.default = api
        return app

    async def _ready(self) -> ProbeAnswer:
        # As long as its database answers, so can it, be it with what it knew: browsers fall back on it.
        return readyz(await trouble_with(self.engine), consumer=self.consumer.trouble())


def main(settings: RasSettings) -> None:
    """Runs RAS as this process, until it is told to stop."""
    serve(Ras, settings)
