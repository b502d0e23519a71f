"""Examines a sink's server: that it is reached, and whatever else the sink knows to look at.

A sink of your own may have a method `check`, as the built-in ones do: see `Checking`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from outbox.errors import Unavailable
from outbox.finding import Finding
from outbox.settings import Settings
from outbox.sinks import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What the outbox asks of a sink's server."""

    destinations: Sequence[str] = ()
    """Where deliveries go now; those that wait come first, and not all are told."""
    max_bytes: int = 1_000_000
    """The largest message that may be written for the sink."""
    retention_seconds: float = 7 * 86_400.0
    """How long the outbox keeps what was delivered."""
    clock: Callable[[], float] = time.time
    """This host's time, in seconds since 1970."""


@runtime_checkable
class Checking(Protocol):
    """A sink that examines its server, after `start` and before `stop`."""

    async def check(self, use: Use) -> Sequence[Finding]:
        """Returns what is not as it should be; changes and sends nothing."""


async def check(
    name: str, settings: Settings, destinations: Sequence[str], clock: Callable[[], float] = time.time
) -> Sequence[Finding]:
    """Examines the sink of that name. Raises `SettingsError` if it cannot be had as it is set."""
    use = Use(
        destinations=destinations,
        max_bytes=settings.sink(name).max_bytes,
        retention_seconds=settings.retention,
        clock=clock,
    )
    sink = load(name, settings)
    try:
        await sink.start()
        return await sink.check(use) if isinstance(sink, Checking) else []
    except Unavailable as error:
        return [Finding("error", f"It cannot be reached: {error.reason}.", _reachable(name))]
    finally:
        await sink.stop()


def _reachable(name: str) -> str:
    variable = {"kafka": "KAFKA_BOOTSTRAP_SERVERS", "redis": "REDIS_URL"}.get(name, f"{name.upper()}_…")
    return f"does it run, and is OUTBOX_{variable} right? Relays go on by themselves when it is back"
