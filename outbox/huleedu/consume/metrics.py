"""What every consumer counts, under the prefix of its service."""

from __future__ import annotations

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from outbox.huleedu.consume.refusal import KINDS

_AGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86_400)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200)


class ConsumerMetrics:
    """The metrics of one consumer; what is of events is counted once a transaction has committed."""

    parked_kinds = (*KINDS, "unknown")

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self.events = Counter(
            f"{prefix}_events_total",
            "Events that are done with, by topic and by what became of them.",
            ["topic", "outcome"],
            registry=registry,
        )
        self.retries = Counter(
            f"{prefix}_event_retries_total",
            "Events that failed and wait to be tried again.",
            ["topic"],
            registry=registry,
        )
        self.seconds = Histogram(
            f"{prefix}_transaction_seconds",
            "A transaction of one or more events.",
            ["topic"],
            registry=registry,
        )
        self.sizes = Histogram(
            f"{prefix}_transaction_events",
            "How many events a transaction had.",
            ["topic"],
            buckets=_SIZES,
            registry=registry,
        )
        self.age = Histogram(
            f"{prefix}_event_age_seconds",
            "From when a record was made to when its event was done with.",
            ["topic"],
            buckets=_AGES,
            registry=registry,
        )
        self.held = Gauge(
            f"{prefix}_partitions_held",
            "Partitions whose next event has failed and waits to be tried again.",
            registry=registry,
        )
        self.assigned = Gauge(
            f"{prefix}_partitions_assigned",
            "Partitions that the group has given to this process.",
            ["topic"],
            registry=registry,
        )
        self.lag = Gauge(
            f"{prefix}_lag_records",
            "Records that wait in the partitions of this process; NaN while Kafka does not say.",
            ["topic"],
            registry=registry,
        )
        self.parked = Gauge(
            f"{prefix}_parked_input",
            "Records that could not be used and wait for a person, of the whole group, by what is wrong.",
            ["kind"],
            registry=registry,
        )

    def forget(self, topics: Iterable[str]) -> None:
        """Tells of no partition any more: with the connection to Kafka the share of the group is lost."""
        for topic in topics:
            self.lag.labels(topic).set(math.nan)
            self.assigned.labels(topic).set(0)
