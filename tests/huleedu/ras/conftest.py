"""RAS without Kafka: what it receives, and whom it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.huleedu.consume import Receiver
from outbox.huleedu.database import engine_of
from outbox.huleedu.ras import RasSettings
from outbox.huleedu.ras.api import application
from outbox.huleedu.ras.metrics import CONSUMER
from outbox.huleedu.ras.record import HANDLERS
from tests.support.huleedu import CREDENTIALS, ras_settings


@pytest.fixture
def settings(huleedu_database: str) -> RasSettings:
    """RAS on a database of the test's own, without Kafka."""
    return ras_settings(huleedu_database)


@pytest.fixture
async def engine(settings: RasSettings) -> AsyncIterator[AsyncEngine]:
    """RAS's connections to that database."""
    engine = engine_of(settings)
    yield engine
    await engine.dispose()


@pytest.fixture
def receiver(engine: AsyncEngine) -> Receiver:
    """Applies RAS's events to that database."""
    return Receiver(engine, "ras", HANDLERS, CONSUMER)


@pytest.fixture
def app(settings: RasSettings, engine: AsyncEngine) -> FastAPI:
    """The API on that database."""
    return application(settings, engine)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A service that may ask it."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ras", headers=CREDENTIALS) as client:
        yield client


async def ask(client: httpx.AsyncClient, batch_id: str) -> dict[str, Any]:
    """The status of a batch that there is."""
    response = await client.get(f"/internal/v1/batches/{batch_id}/status")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer
