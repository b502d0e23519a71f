"""The Essay Lifecycle Service as a process: what it consumes, and its probes."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.applications import Starlette
from starlette.types import ASGIApp

from outbox.huleedu.consume import ConsumerMetrics, Handler
from outbox.huleedu.els.assign import Assigned, Excess, Waiting, assign_slot, register_batch
from outbox.huleedu.els.metrics import REGISTRY
from outbox.huleedu.els.settings import ElsSettings
from outbox.huleedu.events import (
    CONTENT_PROVISIONED,
    ESSAYS_REGISTERED,
    BatchEssaysRegistered,
    EssayContentProvisionedV1,
    EventEnvelope,
)
from outbox.huleedu.service import Service
from outbox.process import serve
from outbox.web.probes import ProbeAnswer, probes, readyz

_METRICS = ConsumerMetrics("els", REGISTRY)


class Els(Service):
    """`async with Els(settings):` assigns content to slots, as long as the block lasts."""

    def __init__(self, settings: ElsSettings) -> None:
        handlers = (
            Handler(ESSAYS_REGISTERED, BatchEssaysRegistered, self._registered),
            Handler(CONTENT_PROVISIONED, EssayContentProvisionedV1, self._provisioned),
        )
        super().__init__(settings, handlers, _METRICS)
        self._notify_within = timedelta(seconds=settings.notify_within_seconds)

    def application(self) -> ASGIApp:
        """Returns the probes."""
        return Starlette(routes=probes(self._ready, REGISTRY))

    async def _ready(self) -> ProbeAnswer:
        return readyz(self.consumer.trouble())

    async def _registered(
        self, connection: AsyncConnection, event: EventEnvelope[BatchEssaysRegistered]
    ) -> str:
        first = await register_batch(
            connection, event.data, event.correlation_id, notify_within=self._notify_within
        )
        return "registered" if first else "repeated"

    async def _provisioned(
        self, connection: AsyncConnection, event: EventEnvelope[EssayContentProvisionedV1]
    ) -> str:
        match await assign_slot(connection, event.data, notify_within=self._notify_within):
            case Assigned(first=True):
                return "assigned"
            case Excess(first=True):
                return "excess"
            case Waiting():
                return "waiting"
            case Assigned(duplicate_of=str()):
                return "duplicate"
            case Assigned() | Excess():
                return "repeated"


def main(settings: ElsSettings) -> None:
    """Runs ELS as this process, until it is told to stop."""
    serve(Els, settings)
