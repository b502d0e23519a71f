"""A process that serves until it is told to end: by the first signal in good order, by the second at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from threading import Timer
from types import FrameType
from typing import TypeVar

import structlog

from outbox.logs import LogSettings, configure_logging

S = TypeVar("S", bound=LogSettings)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LINGER_SECONDS = 1.0


def serve(service: Callable[[S], AbstractAsyncContextManager[object]], settings: S) -> None:
    """Runs a service as this process, logs on stderr, until SIGTERM or Ctrl-C ends it in good order."""
    configure_logging(settings)
    asyncio.run(_serve(service, settings))


async def _serve(service: Callable[[S], AbstractAsyncContextManager[object]], settings: S) -> None:
    asked = asyncio.Event()

    def stop(reason: str) -> None:
        structlog.get_logger(__name__).info("service.stopping", reason=reason)
        asked.set()

    stop_on_signal(stop)
    async with service(settings):
        await asked.wait()
    linger_no_longer()


def linger_no_longer() -> None:
    """Ends the process within a second, when all is done in good order and only threads are left.

    Python waits for each of them, and one may wait for a name server that is silent for half a minute.
    """
    end = Timer(_LINGER_SECONDS, os._exit, (0,))
    end.daemon = True
    end.start()


def stop_on_signal(stop: Callable[[str], None]) -> None:
    """Calls `stop` in the running loop with the name of the first SIGTERM or SIGINT.

    The next one ends the process, whatever that is doing: not even a loop that hangs is asked.
    """
    loop = asyncio.get_running_loop()

    def first(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        loop.call_soon_threadsafe(stop, signal.Signals(number).name)

    # Not by the loop's own handlers, which take a second signal only after they have dealt with the first.
    for each in _SIGNALS:
        signal.signal(each, first)
