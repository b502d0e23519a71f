"""The walk beside the lines, which finds what somebody changed by hand below the floors."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from outbox.relay.lanes import Lane
from outbox.relay.store import Store, Walk

_STEP_SECONDS = 1.0
_DEPTH = 500
"""How many rows of each lane a step looks at."""


class LookBack:
    """One pump's; steps now and then, each of them short, whatever waits there.

    It sends nothing: where it finds something, the line goes back to it, and so keeps the order.
    """

    def __init__(self, every_seconds: float = 60.0) -> None:
        self._every = every_seconds
        """From the end of a walk to the beginning of the next."""
        self._next = monotonic() + every_seconds
        self._after: dict[int, int] = {}
        """Up to which id each lane was looked at in this walk."""

    async def step(self, store: Store, lanes: Sequence[Lane], apart: Sequence[str]) -> None:
        """Looks at some rows, if it is time."""
        if monotonic() < self._next:
            return
        walks = [Walk(lane.number, None, lane.floor, _DEPTH) for lane in lanes]
        after = [self._after.get(lane.number, 0) for lane in lanes]
        mine = {lane.number: lane for lane in lanes}
        ended = True
        for number, last, found in await store.look_back(walks, after, apart, depth=_DEPTH):
            if found is not None:
                mine[number].rewind(None, found - 1)
            if last is not None:
                self._after[number] = last
                ended = False
        if ended:
            self._after = {}
        self._next = monotonic() + (self._every if ended else _STEP_SECONDS)
