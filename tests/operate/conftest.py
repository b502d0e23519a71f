from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate import connect
from outbox.settings import Settings


@pytest.fixture
async def operator(database: str) -> AsyncIterator[AsyncConnection]:
    async with connect(Settings.model_validate({"database_url": database})) as connection:
        yield connection
