"""A gate: what came to the gated sinks behind it, and what shall go wrong with what comes next.

It is a directory, so that sinks in other processes are behind it too, and what a killed one sent is
not forgotten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from outbox.errors import Scope
from outbox.message import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with the deliveries that match every condition given.

    - `transient`, `permanent`, `unavailable`: the sink says so; `scope` is that of `Unavailable`
    - `raise`: the sink raises, after what came before it in the batch has arrived
    - `hold`: nothing of the batch arrives while the gate has this fault
    - `stall`: the batch arrives, and there is no answer while the gate has this fault
    """

    kind: Literal["transient", "permanent", "unavailable", "raise", "hold", "stall"]
    destination: str | None = None
    key: str | None = None
    id: int | None = None
    probability: float = 1.0
    """With which it strikes, each time a delivery comes; not for `hold` and `stall`."""
    arrives: bool = False
    """The delivery arrives all the same, and the sink calls its failure uncertain."""
    scope: Scope = "sink"
    reason: str = "the gate says so"

    def fits(self, delivery: Delivery) -> bool:
        """True if the fault is about this delivery."""
        return (
            self.destination in (None, delivery.destination)
            and self.key in (None, delivery.key)
            and self.id in (None, delivery.id)
        )


class Attempt(NamedTuple):
    """A delivery that came to a sink, and what the sink said of it."""

    id: int
    message_id: str
    destination: str
    key: str | None
    arrived: bool
    answer: str
    """`sent`, or the kind of the fault; that of a `raise` for everything that came with it."""
    pid: int
    """The process that tried."""


class Gate:
    """The gate of all sinks that have this directory as their option `directory`.

    `OUTBOX_SINKS=name=outbox.testing:GatedSink` makes such a sink; `environment("name")` has that
    variable and the sink's options. `seed` lets faults with a probability strike the same in each run.
    """

    def __init__(self, directory: Path, *, seed: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._seed = seed
        self._attempts: list[Attempt] = []
        self._read_to = 0

    def environment(self, sink: str) -> dict[str, str]:
        """Returns the variables that put the sink of this name behind the gate."""
        prefix = f"OUTBOX_{sink.upper()}"
        return {
            "OUTBOX_SINKS": f"{sink}=outbox.testing:GatedSink",
            f"{prefix}_DIRECTORY": str(self._directory),
            f"{prefix}_SEED": str(self._seed),
        }

    def set(self, *faults: Fault) -> None:
        """Decides what goes wrong from the next delivery on, in place of what did before.

        Of several faults that fit a delivery the first strikes it.
        """
        new = self._directory / f"faults.{os.getpid()}"
        new.write_text(json.dumps([asdict(fault) for fault in faults]))
        new.replace(self._directory / "faults.json")

    def faults(self) -> list[Fault]:
        """Returns what goes wrong now."""
        try:
            text = (self._directory / "faults.json").read_text()
        except FileNotFoundError:
            return []
        return [Fault(**fault) for fault in json.loads(text)]

    def record(self, attempts: Iterable[Attempt]) -> None:
        """Records what came; once this returns, only a crash of the machine loses it."""
        # In one piece, so that processes do not write into each other's lines, and on a line of its own: the
        # one before is torn where its process was killed while it wrote.
        lines = "\n" + "".join(f"{json.dumps(attempt)}\n" for attempt in attempts)
        with (self._directory / "attempts").open("ab", buffering=0) as file:
            file.write(lines.encode())

    @property
    def attempts(self) -> list[Attempt]:
        """Everything that came, in its order."""
        try:
            with (self._directory / "attempts").open() as file:
                file.seek(self._read_to)
                while (line := file.readline()).endswith("\n"):
                    if line.endswith("]\n"):
                        self._attempts.append(Attempt(*json.loads(line)))
                    self._read_to = file.tell()
        except FileNotFoundError:
            pass
        return self._attempts

    @property
    def arrived(self) -> list[int]:
        """The ids of what arrived, in the order in which it did; what arrived twice is there twice."""
        return [attempt.id for attempt in self.attempts if attempt.arrived]
