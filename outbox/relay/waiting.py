"""Waiting for an event, and telling one's own end from another's."""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """True if it is the current task that somebody cancels, rather than something within it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Waits for an event, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
