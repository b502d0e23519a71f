"""How it comes to an end: by itself, on a key, or by a signal, which is heard at every moment."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """What may be waited for. A signal before anybody waits cancels the task, and so does a second one."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.hurried = False
        """A signal asked for it: there is no time to wait for much."""
        self._task = task
        self._asked = asyncio.Event()
        self._waited_for = False

    @property
    def asked(self) -> bool:
        """Whether it is time."""
        return self._asked.is_set()

    def ask(self) -> None:
        """It is time."""
        self._asked.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until it is time, or for so many seconds."""
        self._waited_for = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._asked.wait()

    def hurry(self) -> None:
        """A signal came."""
        if self.hurried or not self._waited_for:
            self._task.cancel()
        self.hurried = True
        self._asked.set()


@contextmanager
def ending() -> Iterator[Ending]:
    """One that hears Ctrl-C, SIGTERM and SIGHUP within the block."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101 - for mypy
    found = Ending(task)
    for number in _SIGNALS:
        loop.add_signal_handler(number, found.hurry)
    try:
        yield found
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
