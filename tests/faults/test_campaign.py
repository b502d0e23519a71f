"""A short campaign: `python -m tests.faults` runs longer ones."""

from __future__ import annotations

import pytest

from tests.faults.__main__ import run

pytestmark = pytest.mark.slow


async def test_nothing_is_lost_or_overtaken_whatever_happens() -> None:
    said: list[str] = []
    found = await run(15.0, 1, said.append)
    assert (found["lost"], found["inversions"]) == (0, 0), said
    assert found["written"]
    assert found["faults"]
