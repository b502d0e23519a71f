"""The walk beside the lines, which finds what somebody changed by hand below the floors."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from outbox.relay.batch import Walk
from outbox.relay.lane import Lane
from outbox.relay.store import Store

_DEPTH = 500
"""How many rows of each lane a step looks at."""


class LookBack:
    """One pump's; steps now and then, each of them short, whatever waits there: one line after the other.

    It sends nothing: where it finds something, the line goes back to it, and so keeps the order.
    """

    def __init__(self, every_seconds: float = 60.0, step_seconds: float = 1.0) -> None:
        self._every = every_seconds
        """From the end of a walk to the beginning of the next."""
        self._pause = step_seconds
        self._next = monotonic() + every_seconds
        self._lines: list[str | None] = []
        """Those still to be walked, in this walk."""
        self._after: dict[int, int] = {}
        """Up to which id each lane of the first of them was looked at."""
        self._until: dict[int, int] = {}
        """Where each lane's floor was when that line's walk began: what comes to lie below it later is for
        the next walk, or this one would never end."""

    async def step(self, store: Store, lanes: Sequence[Lane], own: Sequence[str]) -> None:
        """Looks at some rows, if it is time."""
        if monotonic() < self._next:
            return
        self._lines = self._lines or [None, *own]
        if await self._walk(store, lanes, self._lines[0], own):
            self._lines, self._after, self._until = self._lines[1:], {}, {}
        self._next = monotonic() + (self._pause if self._lines else self._every)

    async def _walk(self, store: Store, lanes: Sequence[Lane], line: str | None, own: Sequence[str]) -> bool:
        """Looks at some rows of a line; returns whether none was left."""
        mine = {lane.number: lane for lane in lanes if line is None or line in lane.own}
        floors = {number: lane.floor if line is None else lane.own[line] for number, lane in mine.items()}
        self._until = floors | self._until
        walks = [
            Walk(number, line, min(floor, self._until[number]), _DEPTH) for number, floor in floors.items()
        ]
        after = [self._after.get(number, 0) for number in mine]
        ended = True
        for number, last, found in await store.look_back(walks, after, own):
            if found is not None:
                mine[number].rewind(line, found - 1)
            if last is not None:
                self._after[number] = last
                ended = False
        return ended
