"""Waiting for a condition, with a deadline, where no event tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE = 60.0
"""Seconds until what does not come is given up: many times what a slow machine needs."""
BOUNDED = 15.0
"""Seconds within which ends what would never end by itself, were it not bounded."""


async def until(condition: Callable[[], Awaitable[bool]], *, deadline: float = PATIENCE) -> None:
    """Ask again and again until `condition` holds; TimeoutError after `deadline` seconds."""
    async with asyncio.timeout(deadline):
        while not await condition():  # noqa: ASYNC110 - what it asks has no event to wait for
            await asyncio.sleep(0.02)
