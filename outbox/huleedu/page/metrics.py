"""What the page's server counts. No user, batch or file is ever a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.process_collector import ProcessCollector

REGISTRY = CollectorRegistry()

ProcessCollector(registry=REGISTRY)

REQUESTS = Counter("page_requests_total", "Answers, by their HTTP status.", ["status"], registry=REGISTRY)
SECONDS = Histogram("page_request_seconds", "From a request to its answer.", registry=REGISTRY)
