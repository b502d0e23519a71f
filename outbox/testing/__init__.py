"""For your own tests: a sink behind a gate that you hold, and everything that came to it."""

from __future__ import annotations

from outbox.testing.gate import Attempt, Fault, Gate
from outbox.testing.sink import GatedSink

__all__ = ["Attempt", "Fault", "Gate", "GatedSink"]
