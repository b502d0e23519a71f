"""What a pump asks for in one fetch, and what that brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from outbox.message import Delivery
from outbox.relay.statements import DUE_STOP, IN_LINE, STOP, Snapshot

_FLAW = len(Delivery._fields)
"""Where in a fetched row its flaw is; then come what it is to which walk, and the snapshot."""
_WALK, _BRANCH, _DUE, _SNAPSHOT = range(_FLAW + 1, _FLAW + 5)
_SIZE = Delivery._fields.index("size")

_DUE_ROWS, _LEAST_DUE_ROWS = 8_192, 64
"""How many rows that are due all walks of a fetch look at, and each at least: many may be held, or not of its
line."""


Due = tuple[datetime, int]
"""A place among what waited for its time: when that was, and an id."""

BEFORE_ALL: Due = (datetime.min, 0)  # noqa: DTZ901 - asyncpg sends it as -infinity


class Walk(NamedTuple):
    """A line of a lane, to be read from its floor."""

    lane: int
    line: str | None
    """The destination whose own it is; None: the shared one."""
    floor: int
    """Nothing with an id up to here is left to find in it."""
    most: int
    """At most so many deliveries."""
    due: Due = BEFORE_ALL
    """After which to look at what waited for its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a pump asks for in one fetch."""

    walks: Sequence[Walk]
    """Served in this order."""
    rows: int
    """At most so many deliveries."""
    budget: int
    """At most about so many bytes, but at least one delivery."""
    depth: int
    """How many rows of its lane each walk looks at."""
    apart: Sequence[str] = ()
    """Destinations that are not in the shared line."""
    generation: str | None = None
    """As last seen. Unless the snapshot has the same, all floors are taken for zero."""

    @property
    def deferred(self) -> int:
        """How many deliveries that waited for their time each walk may bring: a fair share."""
        return max(1, self.rows // max(1, len(self.walks)))

    def values(self, sink: str) -> tuple[Any, ...]:
        """Returns the parameters of the statement `FETCH`."""
        return (
            sink,
            [walk.lane for walk in self.walks],
            [walk.line for walk in self.walks],
            [walk.floor for walk in self.walks],
            [walk.most for walk in self.walks],
            self.rows,
            self.budget,
            list(self.apart),
            self.generation,
            self.depth,
            self.deferred,
            [walk.due[0] for walk in self.walks],
            [walk.due[1] for walk in self.walks],
            max(_LEAST_DUE_ROWS, _DUE_ROWS // max(1, len(self.walks))),
        )


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch brought, in id order within each line."""

    snapshot: Snapshot
    deliveries: list[Delivery]
    numbers: list[int]
    """Of each delivery, its walk by its place in the request."""
    in_line: list[bool]
    """Of each delivery, whether its walk came to it in line."""
    flaws: dict[int, str]
    """By id: why a delivery cannot be sent, found before anything of it was read."""
    stops: dict[int, int]
    """By walk: up to which id it looked, where more may be behind that."""
    due_stops: dict[int, Due]
    """By walk: up to where it looked at what waited for its time, where more may be behind that."""
    share: int
    """How many that waited for their time a walk could bring at most."""
    cut: bool
    """Whether it was cut by the number of rows or bytes, so that walks may have been left out."""


def fetched(records: Sequence[Any], request: Request) -> Fetched:
    """Returns what a fetch brought, from its rows."""
    snapshot = Snapshot(*records[0][_SNAPSHOT:])
    records = [record for record in records if record[0] is not None]
    found = [record for record in records if record[_BRANCH] < STOP]
    due_stops = [record for record in records if record[_BRANCH] == DUE_STOP]
    return Fetched(
        snapshot=snapshot,
        deliveries=[Delivery._make(record[:_FLAW]) for record in found],
        numbers=[record[_WALK] for record in found],
        in_line=[record[_BRANCH] == IN_LINE for record in found],
        flaws={record[0]: record[_FLAW] for record in found if record[_FLAW] is not None},
        stops={record[_WALK]: record[0] for record in records if record[_BRANCH] == STOP},
        due_stops={record[_WALK]: (record[_DUE], record[0]) for record in due_stops},
        share=request.deferred,
        cut=len(records) >= request.rows or sum(record[_SIZE] for record in records) >= request.budget,
    )


def unreadable(records: Sequence[Any], request: Request, reason: str) -> Fetched:
    """Returns a fetch of one row, which cannot be read for this reason."""
    brought = fetched(records, request)
    flaws = {delivery.id: f"it cannot be read: {reason}" for delivery in brought.deliveries}
    return replace(brought, flaws=flaws | brought.flaws)
