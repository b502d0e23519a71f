"""Migrations of a test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.migrations import Scripts


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    """The outbox's first migration, to which a test adds others."""
    return Scripts(tmp_path / "migrations")
