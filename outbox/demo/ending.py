"""How the demo comes to an end: by itself, on a key, or by a signal, which is heard at every moment."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """The end of the demo, to be waited for.

    A signal before anybody waits cancels the task, and so does a second one.
    """

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.hurried = False
        """A signal asked for it: there is no time to wait for much."""
        self._task = task
        self._asked = asyncio.Event()
        self._waited_for = False

    @property
    def asked(self) -> bool:
        """True if it is time to end."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Says that it is time to end."""
        self._asked.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Waits until it is time to end, or for so many seconds."""
        self._waited_for = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._asked.wait()

    def hurry(self) -> None:
        """Says, for a signal, that it is time to end and that there is no time to wait for much."""
        if self.hurried or not self._waited_for:
            self._task.cancel()
        self.hurried = True
        self._asked.set()


@contextmanager
def ending() -> Iterator[Ending]:
    """Gives an end that hears Ctrl-C, SIGTERM and SIGHUP within the block."""
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
