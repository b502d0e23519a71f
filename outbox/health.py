"""How a relay is doing, by what it knows itself: what probes are answered from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A pump that failed and is started again after a pause."""

    pump: int
    reason: str
    seconds: float
    """Since it first failed, and did none of its work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkHealth:
    """How one sink of a relay is doing."""

    sink: str
    lanes: frozenset[int]
    """The lanes this relay owns."""
    open_breakers: frozenset[str | None] = frozenset()
    """Destinations nothing is sent to for now; None stands for the whole sink."""
    quiet_seconds: float = 0.0
    """Since it last delivered something, or since there is a relay."""
    in_vain: tuple[float, str] = (0.0, "")
    """For how many seconds nothing has come of all that it tried, though what it goes to is not down, and
    why; no time while it is one delivery alone that fails."""
    failing: tuple[Failing, ...] = ()
    """Its pumps that do none of their work now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a relay is doing, by what it knows itself."""

    waiting_for: str | None = None
    """`postgres` or `schema` before it can work or after it lost them; `start` before that; `end` when it
    ended by itself; else None."""
    reason: str = ""
    """Why it waits, in one line."""
    stopping: bool = False
    sinks: tuple[SinkHealth, ...] = ()
