"""Migrations of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.migrations import Scripts


@pytest.fixture
async def scripts(tmp_path: Path) -> AsyncIterator[Scripts]:
    """The outbox's migrations, to which a test adds others."""
    made = Scripts(tmp_path / "migrations")
    yield made
    await made.close()
