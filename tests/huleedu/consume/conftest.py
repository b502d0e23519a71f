"""ELS and RAS on a database of the test's own, without Kafka: what they receive is handed to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.huleedu.els.service import Els
from outbox.huleedu.els.settings import ElsSettings
from outbox.huleedu.ras import Ras
from tests.support.huleedu import ras_settings, record


@pytest.fixture
async def ras(huleedu_database: str) -> AsyncIterator[Ras]:
    """RAS on a database of the test's own, without Kafka."""
    ras = Ras(ras_settings(huleedu_database))
    yield ras
    await ras.engine.dispose()


@pytest.fixture
async def els(huleedu_database: str) -> AsyncIterator[Els]:
    """ELS on a database of the test's own, without Kafka."""
    els = Els(ElsSettings(database_url=huleedu_database, kafka_bootstrap_servers="127.0.0.1:1"))
    yield els
    await els.engine.dispose()


def records(topic: str, *bodies: Any, first: int = 0) -> list[ConsumerRecord]:
    return [record(topic, body, offset) for offset, body in enumerate(bodies, first)]


async def column(engine: AsyncEngine, statement: str) -> list[Any]:
    async with engine.connect() as connection:
        return list((await connection.execute(text(statement))).scalars())


PARKED = "SELECT partition_offset FROM huleedu_parked_input ORDER BY 1"
