from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from outbox.testing import Gate
from tests.relay.by_hand import ByHand
from tests.relay.traffic import QUICK, SINK
from tests.support import sql


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def environment(database: str, gate: Gate) -> dict[str, str]:
    """The settings of a quick relay that has the gated sink."""
    return {"OUTBOX_DATABASE_URL": database, **QUICK, **gate.environment(SINK)}


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as made:
        yield made


@pytest.fixture
async def by_hand(environment: dict[str, str]) -> AsyncIterator[ByHand]:
    """A relay moved by hand, owning all lanes."""
    async with ByHand.made(environment) as relay:
        await relay.beat()
        yield relay
