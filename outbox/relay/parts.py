"""What a relay is made of, before any loop runs: lanes, sinks with their pumps, maintenance.

`Relay` runs them; who wants to take a relay step by step moves them by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from outbox.clock import since_boot
from outbox.relay.breakers import SinkBreakers
from outbox.relay.lanes import Lanes
from outbox.relay.maintenance import Maintenance
from outbox.relay.operations import Operations
from outbox.relay.pump import Pump, ServedSink
from outbox.settings import Settings
from outbox.sinks import load


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one relay."""

    lanes: Lanes
    served: Sequence[ServedSink]
    pumps: Mapping[str, Sequence[Pump]]
    """By the name of their sink."""
    maintenance: Maintenance
    operations: Operations

    @classmethod
    def of(cls, settings: Settings, clock: Callable[[], float] = since_boot) -> Self:
        """Makes the parts, connected to nothing yet; leases are counted on `clock`.

        Raises `SettingsError` where a sink cannot be made.
        """
        lanes = Lanes(settings, clock)
        served = [_serve(name, settings, lanes) for name in settings.sink_names]
        pumps = {
            each.name: [Pump(each, number, settings) for number in range(settings.pumps)] for each in served
        }
        return cls(lanes, served, pumps, Maintenance(settings, lanes.relay), Operations(settings))


def _serve(name: str, settings: Settings, lanes: Lanes) -> ServedSink:
    own = settings.sink(name)
    breakers = SinkBreakers(name, own.policy.breaker, pumps=settings.pumps)
    return ServedSink(name, load(name, settings), own, lanes.of(name), breakers)
