"""A database for ELS, and a registered batch in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.huleedu.els import register_batch
from tests.support.huleedu import engine_on, registration


@pytest.fixture
async def engine(huleedu_database: str) -> AsyncIterator[AsyncEngine]:
    """Connections to a database of the test's own."""
    engine = engine_on(huleedu_database)
    yield engine
    await engine.dispose()


@pytest.fixture
async def batch(engine: AsyncEngine) -> str:
    """A batch of three essays, of teacher-1."""
    async with engine.begin() as connection:
        await register_batch(connection, registration(), uuid4())
    return "batch-1"
