"""The gated sink: it delivers into its gate's record, and fails as the gate tells it to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Literal

from outbox.errors import Permanent, SettingsError, SinkError, Transient, Unavailable
from outbox.message import Delivery, Result, Sent
from outbox.sinks import BEHIND
from outbox.testing.gate import Attempt, Fault, Gate

_LOOK_SECONDS = 0.01


class GatedSink:
    """A sink behind the gate in `options["directory"]`; see `Gate`."""

    def __init__(self, options: Mapping[str, str]) -> None:
        if "directory" not in options:
            raise SettingsError("a gated sink has the option DIRECTORY, its gate's")
        self._gate = Gate(Path(options["directory"]))
        self._random = Random(int(options.get("seed", 0)))  # noqa: S311 - chance in tests

    async def start(self) -> None:
        """Connects to nothing. Raises `Unavailable` while the gate says that everything always is."""
        for fault in self._gate.faults():
            if fault == Fault(kind="unavailable", arrives=fault.arrives, reason=fault.reason):
                raise Unavailable(fault.reason)

    async def send(self, deliveries: Sequence[Delivery]) -> list[Result]:
        """Records a batch as arrived, but for what the gate's faults strike; returns its results."""
        await self._passes("hold", deliveries)
        faults = [fault for fault in self._gate.faults() if fault.kind not in ("hold", "stall")]
        results: list[Result] = []
        attempts: list[Attempt] = []
        failed: set[int] = set()
        for delivery in deliveries:
            if delivery.key_hash in failed:
                results.append(BEHIND)
                continue
            fault = self._strikes(faults, delivery)
            attempts.append(_attempt(delivery, fault))
            if fault is None:
                results.append(Sent())
            elif fault.kind == "raise":
                self._gate.record(attempt._replace(answer="raise") for attempt in attempts)
                raise RuntimeError(fault.reason)
            else:
                failed.add(delivery.key_hash)
                results.append(_error(fault))
        self._gate.record(attempts)
        await self._passes("stall", deliveries)
        return results

    async def stop(self) -> None:
        """Disconnects from nothing."""

    def _strikes(self, faults: Sequence[Fault], delivery: Delivery) -> Fault | None:
        for fault in faults:
            if fault.fits(delivery) and self._random.random() < fault.probability:
                return fault
        return None

    async def _passes(self, kind: Literal["hold", "stall"], deliveries: Sequence[Delivery]) -> None:
        while any(  # noqa: ASYNC110 - the gate may be another process's, which has no event to wait for
            fault.kind == kind and fault.fits(delivery)
            for fault in self._gate.faults()
            for delivery in deliveries
        ):
            await asyncio.sleep(_LOOK_SECONDS)


def _attempt(delivery: Delivery, fault: Fault | None) -> Attempt:
    return Attempt(
        delivery.id,
        str(delivery.message_id),
        delivery.destination,
        delivery.key,
        fault is None or fault.arrives,
        "sent" if fault is None else fault.kind,
        os.getpid(),
    )


def _error(fault: Fault) -> SinkError:
    match fault.kind:
        case "permanent":
            return Permanent(fault.reason, uncertain=fault.arrives)
        case "unavailable":
            return Unavailable(fault.reason, scope=fault.scope, uncertain=fault.arrives)
        case _:
            return Transient(fault.reason, uncertain=fault.arrives)
