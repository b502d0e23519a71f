"""What every consumer counts, under the prefix of its service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_AGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86_400)


class ConsumerMetrics:
    """The metrics of one consumer, counted once a transaction has committed."""

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
            f"{prefix}_event_handling_seconds", "The transaction of one event.", ["topic"], registry=registry
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
