"""What a pump asks for in one fetch, and what that brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from outbox.message import Delivery
from outbox.relay.statements import IN_LINE, STOP, Snapshot

_FLAW = len(Delivery._fields)
"""Where in a fetched row its flaw is; then come the number of its walk, its branch, and the snapshot."""
_BRANCH = _FLAW + 2
_SNAPSHOT = _FLAW + 3
_SIZE = Delivery._fields.index("size")


class Walk(NamedTuple):
    """A line of a lane, to be read from its floor."""

    lane: int
    line: str | None
    """The destination whose own it is; None: the shared one."""
    floor: int
    """Nothing with an id up to here is left to find in it."""
    most: int
    """At most so many deliveries."""


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
        lanes, lines, floors, most = (
            map(list, zip(*self.walks, strict=True)) if self.walks else ([], [], [], [])
        )
        return (
            sink,
            lanes,
            lines,
            floors,
            most,
            self.rows,
            self.budget,
            list(self.apart),
            self.generation,
            self.depth,
            self.deferred,
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
    cut: bool
    """Whether it was cut by the number of rows or bytes, so that walks may have been left out."""


def fetched(records: Sequence[Any], request: Request) -> Fetched:
    """Returns what a fetch brought, from its rows."""
    snapshot = Snapshot(*records[0][_SNAPSHOT:])
    records = [record for record in records if record[0] is not None]
    found = [record for record in records if record[_BRANCH] != STOP]
    return Fetched(
        snapshot=snapshot,
        deliveries=[Delivery._make(record[:_FLAW]) for record in found],
        numbers=[record[_FLAW + 1] for record in found],
        in_line=[record[_BRANCH] == IN_LINE for record in found],
        flaws={record[0]: record[_FLAW] for record in found if record[_FLAW] is not None},
        stops={record[_FLAW + 1]: record[0] for record in records if record[_BRANCH] == STOP},
        cut=len(records) >= request.rows or sum(record[_SIZE] for record in records) >= request.budget,
    )


def unreadable(records: Sequence[Any], request: Request, reason: str) -> Fetched:
    """Returns a fetch of one row, which cannot be read for this reason."""
    brought = fetched(records, request)
    flaws = {delivery.id: f"it cannot be read: {reason}" for delivery in brought.deliveries}
    return replace(brought, flaws=flaws | brought.flaws)
