"""Waiting for a condition, with a deadline, where no event tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[bool]], *, deadline: float = 20.0) -> None:
    """Ask again and again until `condition` holds; TimeoutError after `deadline` seconds."""
    async with asyncio.timeout(deadline):
        while not await condition():  # noqa: ASYNC110 - what it asks has no event to wait for
            await asyncio.sleep(0.02)
