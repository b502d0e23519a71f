"""What RAS counts. No batch, user or message is ever a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.process_collector import ProcessCollector

from outbox.huleedu.consume import ConsumerMetrics

REGISTRY = CollectorRegistry()

ProcessCollector(registry=REGISTRY)

CONSUMER = ConsumerMetrics("ras", REGISTRY)

REQUESTS = Counter("ras_requests_total", "Answers, by their HTTP status.", ["status"], registry=REGISTRY)
SECONDS = Histogram(
    "ras_request_seconds",
    "From a request to its answer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5),
    registry=REGISTRY,
)
