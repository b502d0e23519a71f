"""What ELS counts. No batch, user or message is ever a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.process_collector import ProcessCollector

REGISTRY = CollectorRegistry()

ProcessCollector(registry=REGISTRY)

WITHOUT_USER = Counter(
    "els_assignments_without_user_total",
    "Assignments and excess content that no browser is told of, because their batch has no user.",
    registry=REGISTRY,
)
