"""The Essay Lifecycle Service as a process: what it consumes, and its probes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.applications import Starlette
from starlette.types import ASGIApp

from outbox import Waker
from outbox.huleedu.consume import ConsumerMetrics, Effect, Handler, Incoming, counting, pruning
from outbox.huleedu.els.assign import (
    Assigned,
    Excess,
    Given,
    Registration,
    SlotOutcome,
    Waiting,
    assign_slots,
    register_batches,
)
from outbox.huleedu.els.contents import waiting
from outbox.huleedu.els.metrics import REGISTRY, WAITING, WAITING_OLDEST, PerUser
from outbox.huleedu.els.publish import Publication
from outbox.huleedu.els.settings import ElsSettings
from outbox.huleedu.els.store import forget_names, lock_batches
from outbox.huleedu.events import (
    CONTENT_PROVISIONED,
    ESSAYS_REGISTERED,
    BatchEssaysRegistered,
    EssayContentProvisionedV1,
)
from outbox.huleedu.service import Service
from outbox.process import serve
from outbox.web.probes import ProbeAnswer, probes, readyz

_log = structlog.get_logger(__name__)

_METRICS = ConsumerMetrics("els", REGISTRY)


class Els(Service):
    """`async with Els(settings):` assigns content to slots, as long as the block lasts."""

    def __init__(self, settings: ElsSettings) -> None:
        handlers = (
            Handler(ESSAYS_REGISTERED, BatchEssaysRegistered, self._registered),
            Handler(CONTENT_PROVISIONED, EssayContentProvisionedV1, self._provisioned),
        )
        chores = (pruning("forget names", settings.names_retention, forget_names), counting(self._count))
        super().__init__(settings, handlers, _METRICS, chores)
        self._per_user = PerUser()
        self._waker = Waker(self.engine)
        # Bound once: a line for each publication would bind it anew each time, which is a third of its cost.
        self._log = _log.bind()
        self._notify_within = timedelta(seconds=settings.notify_within_seconds)

    def beside(self) -> Waker:
        """Returns what wakes the relay."""
        return self._waker

    def application(self) -> ASGIApp:
        """Returns the probes."""
        return Starlette(routes=probes(self._ready, REGISTRY))

    async def _ready(self) -> ProbeAnswer:
        return readyz(self.consumer.trouble())

    async def _count(self, connection: AsyncConnection) -> None:
        number, seconds = await waiting(connection)
        WAITING.set(number)
        WAITING_OLDEST.set(seconds)
        self._per_user.turn()

    async def _registered(
        self, connection: AsyncConnection, events: Sequence[Incoming[BatchEssaysRegistered]]
    ) -> Sequence[Effect]:
        effects: list[Effect] = []
        # All of them first, so that the order is one whatever the rounds are.
        await lock_batches(connection, (each.data.entity_id for each in events))
        for some in _rounds(events):
            given = [Registration(each.data, each.event.correlation_id, each.trace()) for each in some]
            new, done = await register_batches(connection, given, notify_within=self._notify_within)
            published: dict[str, list[Publication]] = defaultdict(list)
            for each in done:
                if each.published:
                    published[each.published.batch_id].append(each.published)
            effects += [
                Effect(
                    "registered" if each.data.entity_id in new else "repeated",
                    partial(self._tell, published[each.data.entity_id]),
                )
                for each in some
            ]
        return effects

    async def _provisioned(
        self, connection: AsyncConnection, events: Sequence[Incoming[EssayContentProvisionedV1]]
    ) -> Sequence[Effect]:
        given = [Given(each.data, each.trace()) for each in events]
        done = await assign_slots(connection, given, notify_within=self._notify_within)
        return [
            Effect(_word(each.outcome), partial(self._tell, [each.published]) if each.published else None)
            for each in done
        ]

    def _tell(self, published: Sequence[Publication], names: Mapping[str, str]) -> None:
        """Logs and counts what is published, once it is committed: ids, and no names of files."""
        for each in published:
            self._log.info("els.published", **{**names, **each._asdict(), "message_id": str(each.message_id)})
            if each.channel:
                self._per_user.add(each.channel)
        self._waker.wake()


def _rounds(
    events: Sequence[Incoming[BatchEssaysRegistered]],
) -> Iterator[Sequence[Incoming[BatchEssaysRegistered]]]:
    """Gives the events in turn, as many at once as are of different batches."""
    some: dict[str, Incoming[BatchEssaysRegistered]] = {}
    for each in events:
        if each.data.entity_id in some:
            yield list(some.values())
            some = {}
        some[each.data.entity_id] = each
    yield list(some.values())


def _word(outcome: SlotOutcome) -> str:
    match outcome:
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
