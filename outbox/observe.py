"""What happens in a relay, told once: a named event is a log line, a metric and a test signal.

`emit("pump.settled", sink="kafka", …)` logs the event at its level, updates the metrics that follow
from it, and calls whoever subscribed. Tests wait on events (`watch`), never on time; a crash test
subscribes and kills its process at a named seam.

Counters and histograms follow from events. Gauges of lanes and breakers are read from the relay when somebody
asks; those of the queue are counted in the database apart, so they are right whichever relay did the work.
No message, user or correlation id is ever a label.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from outbox.logs import Throttle

Fields = Mapping[str, Any]

REGISTRY = CollectorRegistry()
"""The relay's metrics; a service with a registry of its own may serve or register this one beside it."""

ProcessCollector(registry=REGISTRY)

_PUBLISHED = Counter(
    "outbox_events_published_total", "Deliveries the sink acknowledged.", ["sink"], registry=REGISTRY
)
_FAILED = Counter(
    "outbox_events_failed_total",
    "Deliveries that failed once more (retry), were given up (parked) or came too late (expired).",
    ["sink", "outcome"],
    registry=REGISTRY,
)
_AGE = Histogram(
    "outbox_event_age_seconds",
    "From when it was due to its acknowledgement, the oldest delivery of each settled batch.",
    ["sink"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86_400),
    registry=REGISTRY,
)
_PROCESSING = Histogram(
    "outbox_relay_processing_seconds",
    "From the start of a fetch to its rows being settled, per batch.",
    ["sink"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
_LANES_LOST = Counter(
    "outbox_lanes_lost_total",
    "Lanes whose lease ended before it was renewed.",
    ["sink"],
    registry=REGISTRY,
)
_PUMP_FAILURES = Counter(
    "outbox_pump_failures_total",
    "Times a pump ended with an error and was started again.",
    ["sink"],
    registry=REGISTRY,
)
_DATABASE_LOST = Counter(
    "outbox_database_lost_total", "Times the relay lost its database.", registry=REGISTRY
)
_PRUNED = Counter("outbox_pruned_total", "Old deliveries deleted.", registry=REGISTRY)

QUEUE_DEPTH = Gauge(
    "outbox_queue_depth",
    "Deliveries in the queue, by state, counted to 10,000; those to sinks that no relay ever served are of "
    "one, `(unserved)`.",
    ["sink", "state"],
    registry=REGISTRY,
)
STUCK = Gauge(
    "outbox_stuck",
    "Deliveries overdue for longer than the stuck threshold, counted to 10,000.",
    ["sink"],
    registry=REGISTRY,
)
OLDEST_DUE = Gauge(
    "outbox_oldest_due_seconds",
    "How long the oldest delivery that is not parked has been due.",
    ["sink"],
    registry=REGISTRY,
)
COUNT_AGE = Gauge(
    "outbox_queue_count_age_seconds",
    "How long ago outbox_queue_depth, outbox_stuck and outbox_oldest_due_seconds were counted.",
    registry=REGISTRY,
)
COUNT_AGE.set(math.nan)  # not yet
AMISS = Gauge(
    "outbox_amiss",
    "Rows that do not fit together, by what is wrong; `outbox repair` mends them.",
    ["kind"],
    registry=REGISTRY,
)
LANES_OWNED = Gauge("outbox_lanes_owned", "Lanes this relay owns.", ["sink"], registry=REGISTRY)
BREAKERS_OPEN = Gauge(
    "outbox_breakers_open", "Sinks and destinations this relay holds back from.", ["sink"], registry=REGISTRY
)
READY = Gauge("outbox_relay_ready", "1 while the relay is ready, else 0.", registry=REGISTRY)


def _settled(fields: Fields) -> None:
    sink, delivered = fields["sink"], fields["delivered"]
    _PROCESSING.labels(sink).observe(fields["seconds"])
    if delivered:
        _PUBLISHED.labels(sink).inc(delivered)
        _AGE.labels(sink).observe(fields["oldest_seconds"])


def _failed(outcome: str) -> Callable[[Fields], None]:
    return lambda fields: _FAILED.labels(fields["sink"], outcome).inc()


def _pump_failed(fields: Fields) -> None:
    _PUMP_FAILURES.labels(fields["sink"]).inc()


def _integrity_checked(fields: Fields) -> None:
    for kind in ("lost", "double", "ghosts", "passed", "behind"):
        AMISS.labels(kind).set(fields[kind])


def _lanes_lost(fields: Fields) -> None:
    _LANES_LOST.labels(fields["sink"]).inc(len(fields["lanes"]))


@dataclass(frozen=True, slots=True)
class Kind:
    """What is fixed about an event: its level, the fields it always has, and what it measures."""

    level: int
    fields: str = ""
    measure: Callable[[Fields], None] | None = None
    same: str = ""
    """For what is said again and again while something lasts: the fields by which it is the same. It is
    logged at growing intervals then."""


_D, _I, _W, _E, _C = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL

EVENTS: Mapping[str, Kind] = {
    # The relay's life.
    "relay.started": Kind(_I, "id sinks"),
    "relay.waiting": Kind(_W, "what reason", same="what reason"),  # postgres, schema, or a sink's name
    "relay.ready": Kind(_I),
    "relay.lost_database": Kind(_W, "reason", lambda _: _DATABASE_LOST.inc()),
    "relay.failed": Kind(_C, "reason"),  # one that nobody asked to end
    "relay.stopping": Kind(_I, "reason"),
    "relay.stopped": Kind(_I),
    "http.listening": Kind(_I, "host port"),
    "http.missing": Kind(_W, "reason"),
    # This relay alone is cut off from it; its lanes go to others, and it tries again after `pause` seconds.
    "sink.left": Kind(_W, "sink reason pause"),
    # Who owns what. `lanes` is a collection of lane numbers.
    "lanes.taken": Kind(_I, "sink lanes"),
    "lanes.released": Kind(_I, "sink lanes"),
    "lanes.lost": Kind(_W, "sink lanes", _lanes_lost),
    # By an open writing transaction, of a session or a prepared one; age in seconds.
    "floor.held": Kind(_W, "pid prepared age", same="pid prepared"),
    # One round of a pump; the seams that crash tests use. `rows`, `bytes` etc. count, never list.
    "pump.fetched": Kind(_D, "sink pump rows bytes"),
    "pump.sent": Kind(_D, "sink pump rows sent failed"),
    "pump.settling": Kind(_D, "sink pump rows"),
    "pump.settled": Kind(_D, "sink pump delivered oldest_seconds seconds", _settled),
    # A pump ended with an error that is none of its connection's; it is started again after `pause` seconds.
    "pump.failed": Kind(_E, "sink pump reason pause", _pump_failed, same="sink pump reason"),
    # What failed, per delivery.
    "delivery.retry": Kind(
        _W, "sink id message_id event_type correlation_id attempts delay reason", _failed("retry")
    ),
    "delivery.parked": Kind(
        _E, "sink id message_id event_type correlation_id attempts reason", _failed("parked")
    ),
    "delivery.expired": Kind(_W, "sink id message_id event_type correlation_id", _failed("expired")),
    # What is given up leaves no note of the gap, since the relay's role has older grants.
    "notes.forbidden": Kind(_W, "reason", same="reason"),
    # `destination` None is the sink as a whole; `wait` in seconds.
    "breaker.opened": Kind(_W, "sink destination reason wait", same="sink destination reason"),
    # A part of a destination, say one partition; what goes there is tried again within `wait` seconds.
    "part.failed": Kind(_W, "sink destination part reason wait", same="sink destination part reason"),
    "breaker.closed": Kind(_I, "sink destination reason"),
    # Relays with different settings on one table: the last one to start rules. `relays` are the others.
    "settings.changed": Kind(_W, "sink setting mine other relays"),
    "settings.overruled": Kind(_W, "sink setting mine other relays", same="sink setting mine other"),
    # What operators asked for.
    "operation.batch": Kind(_D, "operation act rows"),
    "operation.ended": Kind(_I, "operation act rows left_out busy uncertain"),
    "operation.failed": Kind(_W, "operation reason", same="reason"),
    "act.hook_failed": Kind(_W, "operation reason"),
    # Maintenance.
    "maintenance.failed": Kind(_E, "reason pause", same="reason"),
    # Nobody wakes the pumps for `pause` seconds, which look for themselves.
    "bell.failed": Kind(_W, "reason pause", same="reason"),
    "bell.listening": Kind(_D),
    # Who wakes this relay is not heard, as behind a pooler in transaction mode.
    "bell.deaf": Kind(_W),
    "count.failed": Kind(_W, "reason", same="reason"),
    "integrity.checked": Kind(_D, "lost double ghosts passed behind", _integrity_checked),
    "integrity.amiss": Kind(
        _E, "lost double ghosts passed behind", same="lost double ghosts passed behind"
    ),  # outbox repair
    "integrity.failed": Kind(_W, "reason", same="reason"),
    "prune.failed": Kind(_W, "reason", same="reason"),
    "prune.done": Kind(_I, "rows", lambda fields: _PRUNED.inc(fields["rows"])),
}
"""Every event, with the fields that it always has. `emit` takes further ones."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `fields` include what the context binds, such as `relay`."""

    name: str
    fields: Fields


Subscriber = Callable[[Event], None]

_subscribers: list[Subscriber] = []
_throttle = Throttle()


def emit(name: str, /, **fields: Any) -> None:
    """Tells that `name`, one of `EVENTS`, happened."""
    kind = EVENTS[name]
    if kind.measure is not None:
        kind.measure(fields)
    if not kind.same or _throttle.passes((name, *map(fields.get, kind.same.split()))):
        _log(kind.level, name, fields)
    if _subscribers:
        event = Event(name, {**structlog.contextvars.get_contextvars(), **fields})
        for subscriber in tuple(_subscribers):
            subscriber(event)


def _log(level: int, name: str, fields: Fields) -> None:
    if structlog.is_configured():
        structlog.get_logger("outbox").log(level, name, **fields)
    else:
        # Inside a service that does not use structlog, whose own default prints everything to stdout.
        logging.getLogger("outbox").log(level, "%s %s", name, fields)


@contextmanager
def subscribe(subscriber: Subscriber) -> Iterator[None]:
    """Calls `subscriber` for every event within the block, where it happens and before `emit` returns.

    It must be quick. What it raises comes out of `emit`.
    """
    _subscribers.append(subscriber)
    try:
        yield
    finally:
        _subscribers.remove(subscriber)


class Watch:
    """The events seen since the watch began; wait for one by name and fields."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, event: Event) -> None:
        """Takes note of an event, from whichever thread."""
        self.seen.append(event)
        self._loop.call_soon_threadsafe(self._news.set)

    def matching(self, name: str, **fields: Any) -> list[Event]:
        """Returns the events seen under this name with these fields."""
        return [e for e in self.seen if e.name == name and fields.items() <= e.fields.items()]

    async def wait_for(self, name: str, /, *, deadline: float = 60.0, count: int = 1, **fields: Any) -> Event:
        """Waits for the `count`-th event of this name with these fields.

        Raises TimeoutError after `deadline` seconds.
        """
        async with asyncio.timeout(deadline):
            while len(found := self.matching(name, **fields)) < count:
                self._news.clear()
                await self._news.wait()
        return found[count - 1]


@contextmanager
def watch() -> Iterator[Watch]:
    """Collects events within the block, to wait on: a test's alternative to sleeping."""
    watching = Watch()
    with subscribe(watching):
        yield watching
