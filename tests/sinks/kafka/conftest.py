from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from outbox.settings import KafkaSettings
from outbox.sinks.kafka import KafkaSink
from tests.support.kafka import Topics
from tests.support.sinks import started


@pytest.fixture
async def sink(kafka: Topics) -> AsyncIterator[KafkaSink]:
    """A sink of the run's Kafka."""
    async with started(KafkaSink(KafkaSettings(bootstrap_servers=kafka.bootstrap))) as sink:
        yield sink
