"""The clock that leases are counted on: it goes on while the machine sleeps, as the database's does."""

from __future__ import annotations

import time


def since_boot() -> float:
    """Returns seconds since some moment in the past, those in which the machine slept included.

    Linux' CLOCK_BOOTTIME; elsewhere the monotonic clock, which may stand still meanwhile. Compare it with
    itself only: asyncio's time and `time.monotonic` count otherwise.
    """
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


def _found() -> int | None:
    clock: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    try:
        return clock if clock is not None and time.clock_gettime(clock) else None
    except OSError:
        return None  # A sandbox may have the name and not the clock.


_CLOCK = _found()
