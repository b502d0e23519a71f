"""What a pump asks for in one fetch, and what that brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from outbox.message import Delivery
from outbox.relay.statements import IN_LINE, STOP, Snapshot

_FLAW = len(Delivery._fields)
"""Where in a fetched row its flaw is; then come what it is to which walk, and the snapshot."""
_WALK, _BRANCH, _PLACE, _DUE, _SNAPSHOT = range(_FLAW + 1, _FLAW + 6)
_PART = itemgetter(_WALK, _BRANCH)
_SIZE = itemgetter(Delivery._fields.index("size"))

_DUE_ROWS, _LEAST_DUE_ROWS = 8_192, 64
"""How many rows that are due all walks of a fetch look at, and each at least: many may be held, or not of its
line."""


Due = tuple[str, int]
"""A place among what waited for its time: when that was, as the database says it, and an id."""

BEFORE_ALL: Due = ("-infinity", 0)


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

    @property
    def due_depth(self) -> int:
        """How many rows that waited for their time each walk looks at."""
        return max(_LEAST_DUE_ROWS, _DUE_ROWS // max(1, len(self.walks)))

    @property
    def stops(self) -> int:
        """How many rows that are no deliveries may come beside as many as are asked for.

        Where lines walk beside others, what all of them walked past would fill a batch. Where all is one
        line, a stop costs a batch one delivery, which is less than to look for it behind a full batch.
        """
        return 2 * len(self.walks) if any(walk.line is not None for walk in self.walks) else 0

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
            self.due_depth,
            self.stops,
        )


@dataclass(slots=True)
class Fetched:
    """What one fetch brought; walks go by their place in the request."""

    snapshot: Snapshot
    share: int
    """How many that waited for their time a walk could bring at most."""
    deliveries: list[Delivery] = field(default_factory=list)
    in_line: dict[int, list[Delivery]] = field(default_factory=dict)
    """What each walk brought in line, in id order."""
    deferred: dict[int, list[Delivery]] = field(default_factory=dict)
    """What each walk brought of what waited for its time."""
    flaws: dict[int, str] = field(default_factory=dict)
    """By id: why a delivery cannot be sent, found before anything of it was read."""
    stops: dict[int, int] = field(default_factory=dict)
    """Up to which id a walk looked, where more may be behind that."""
    due_stops: dict[int, Due] = field(default_factory=dict)
    """Up to where a walk looked at what waited for its time, where more may be behind that."""
    due_ends: dict[int, Due] = field(default_factory=dict)
    """The last that waited for its time, where a walk that did not begin at the beginning looked that far."""
    size: int = 0
    """Of all deliveries, in bytes."""
    cut: bool = False
    """Whether it was cut by the number of rows or bytes, so that walks may have been left out."""


def fetched(records: Sequence[Any], request: Request) -> Fetched:
    """Returns what a fetch brought, from its rows."""
    batch = Fetched(Snapshot(*records[0][_SNAPSHOT:]), request.deferred)
    if records[0][0] is None:
        return batch
    for (walk, branch), rows in groupby(records, _PART):
        if branch == STOP:
            batch.stops[walk] = next(rows)[0]
        else:
            here = list(rows)
            if (due := here[-1][_DUE]) is not None:
                is_stop = here[-1][_PLACE] == request.due_depth
                (batch.due_stops if is_stop else batch.due_ends)[walk] = due, here[-1][0]
            if branch < STOP:
                _add(batch, batch.in_line if branch == IN_LINE else batch.deferred, walk, here)
    batch.cut = (
        len(batch.deliveries) >= request.rows
        or len(records) >= request.rows + request.stops
        or batch.size >= request.budget
    )
    return batch


def _add(batch: Fetched, part: dict[int, list[Delivery]], walk: int, records: Sequence[Any]) -> None:
    batch.size += sum(map(_SIZE, records))
    batch.flaws.update({record[0]: record[_FLAW] for record in records if record[_FLAW] is not None})
    brought = [Delivery._make(record[:_FLAW]) for record in records]
    batch.deliveries += brought
    part.setdefault(walk, []).extend(brought)


def unreadable(records: Sequence[Any], request: Request, reason: str) -> Fetched:
    """Returns a fetch of one row, which cannot be read for this reason."""
    brought = fetched(records, request)
    flaws = {delivery.id: f"it cannot be read: {reason}" for delivery in brought.deliveries}
    return replace(brought, flaws=flaws | brought.flaws)
