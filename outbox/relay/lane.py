"""Where a pump stands in one lane: the floors of its lines, and how far each looked at what waited."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from outbox.relay.batch import BEFORE_ALL, Due

_REST = 10
"""So many times as long as it took does a walk through what waited for its time rest."""


@dataclass(slots=True)
class DueWalk:
    """How far a line's walk is through what waited for its time."""

    place: Due
    began: float
    anew_at: float = inf

    def end(self, now: float) -> None:
        """Takes note that all was looked at: what is due from now on is looked at next, and only that.

        Most of what it saw can go nowhere, as little as it could before, so a walk through all of it is for
        what somebody changed by hand, and has its time.
        """
        self.anew_at = min(self.anew_at, now + _REST * (now - self.began))


@dataclass(slots=True, eq=False)
class Lane:
    """A lane that this relay owns, from when it took it until it gives it up, with where it stands in it."""

    number: int
    epoch: int
    floor: int = 0
    """Nothing with an id up to here is left to find in the shared line."""
    own: dict[str, int] = field(default_factory=dict)
    """The floors of the lines that destinations have of their own."""
    due: dict[str | None, DueWalk] = field(default_factory=dict)
    """The lines' walks through what waited for its time, where one look does not see all of it."""

    def separate(self, names: Iterable[str]) -> None:
        """Gives destinations lines of their own where they have none: from where the shared one stands."""
        for name in names:
            self.own.setdefault(name, self.floor)

    def unite(self, name: str) -> None:
        """Takes a destination's own line back into the shared one."""
        self.floor = min(self.floor, self.own.pop(name, self.floor))
        if self.due.pop(name, None) is not None:
            self.due.pop(None, None)

    def advance(self, line: str | None, reach: int) -> bool:
        """Moves a line's floor on to an id; never back. Returns whether it moved."""
        moves = reach > self._floor(line)
        if moves:
            self._set(line, reach)
        return moves

    def rewind(self, line: str | None, to: int) -> None:
        """Takes a line's floor back to an id, never on; what waited for its time is looked at anew."""
        self._set(line, min(self._floor(line), to))
        self.look_anew(line)

    def due_after(self, line: str | None, now: float) -> Due:
        """Returns after which place to look at what waited for its time, and begins anew when it is time."""
        walk = self.due.get(line)
        if walk and walk.anew_at < now:
            del self.due[line]
            walk = None
        return walk.place if walk else BEFORE_ALL

    def look_on(self, line: str | None, place: Due | None, now: float, *, ended: bool) -> None:
        """Lets the next look at what waited for its time begin after a place; None: after the same."""
        walk = self.due.get(line)
        if walk is None:
            if place:
                self.due[line] = DueWalk(place, now)
            return
        walk.place = place or walk.place
        if ended:
            walk.end(now)

    def look_anew(self, line: str | None) -> None:
        """Lets the next look at what waited for its time begin with the first of it."""
        self.due.pop(line, None)

    def forget(self) -> None:
        """Takes all floors back to the beginning."""
        self.floor = 0
        self.own = dict.fromkeys(self.own, 0)
        self.due.clear()

    def _floor(self, line: str | None) -> int:
        return self.floor if line is None else self.own[line]

    def _set(self, line: str | None, floor: int) -> None:
        if line is None:
            self.floor = floor
        else:
            self.own[line] = floor
