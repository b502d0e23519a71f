"""Where a pump stands in its lanes, and in which order it walks on.

What waits in a lane is one line in id order, read from its floor. A destination that would keep the others
waiting, since it is down or has a backlog, gets a line of its own beside the shared one, with a floor of its
own, until nothing is left in it. A delivery is in one line only, so the order of a key does not depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from operator import attrgetter
from random import randrange
from time import monotonic

from outbox.message import Delivery
from outbox.relay.batch import Fetched, Walk
from outbox.relay.lane import Lane
from outbox.relay.statements import Snapshot
from outbox.relay.verdict import Verdict

_MOST_OWN = 16
"""How many destinations with a backlog have a line of their own; the rest share one."""
_BACKLOG = 8
"""An eighth of a batch that was cut in the shared line, for one destination, is a backlog."""
_HASTY_SECONDS = 0.04
"""No round is to take longer while others go out beside a backlog, or are looked for: they wait less."""
_LEAST_HASTY_ROWS, _MOST_HASTY_ROWS = 250, 500
"""Not fewer, since a round has its own cost, which fewer rows make no less."""
_HASTY_FOR_SECONDS = 10.0
"""After the last of the others: the next of them would wait for rounds that are whole again."""
PROBE_ROWS = 64
"""More than one: what is expired does not use a probe up."""
_SHORTEST_DEPTH, _LONGEST_DEPTH = 1_000, 65_536

_MOST_LOOKED_AT = 4_000_000
"""How many rows of the queue all walks of a fetch look at, so that it does not time out."""

_END = 2**63 - 1
_DESTINATION = attrgetter("destination")


class Frontier:
    """Up to which id everything that was written can be seen.

    An id is drawn before its row is visible, so the newest id tells nothing yet: it counts once every
    transaction is over that could have drawn one up to there.
    """

    def __init__(self) -> None:
        self.id = 0
        self._last_id = 0
        self._candidate: tuple[int, int] | None = None

    def see(self, snapshot: Snapshot) -> None:
        """Learns from a snapshot; this one and all later ones show everything up to `id`."""
        if snapshot.last_id < self._last_id:
            self.id, self._candidate = 0, None  # Ids are given anew.
        elif self._candidate and snapshot.xmin >= self._candidate[1]:
            self.id, self._candidate = self._candidate[0], None
        elif self._candidate is None and self._last_id > self.id:
            # An id of the snapshot before: whoever drew it had its xid before this one's next.
            self._candidate = self._last_id, snapshot.next_xid
        self._last_id = snapshot.last_id


class Lines:
    """The lines of one pump."""

    def __init__(self, rows: int) -> None:
        self._most = rows
        self._own: list[str] = []
        self._down = 0
        """How many of these are down, or probed."""
        self._frontier = Frontier()
        self._hasty_until = 0.0
        self._hasty_rows = _MOST_HASTY_ROWS
        self._own_first = False
        self._others_turn = False
        """Whether this round is for those beside a backlog, who then need not wait for a part of it."""
        self._own_again = False
        """Whether there was more in the lines of their own."""
        self._depth = max(2 * rows, _SHORTEST_DEPTH)
        self._deep = self._depth

    @property
    def apart(self) -> Sequence[str]:
        """The destinations that are not in the shared line."""
        return self._own

    @property
    def rows(self) -> int:
        """How many deliveries to ask for: fewer while others go out beside a backlog."""
        return min(self._hasty_rows, self._most) if self._hasty and not self._others_turn else self._most

    @property
    def _hasty(self) -> bool:
        return bool(self._own) and monotonic() < self._hasty_until

    def depth(self, walks: int) -> int:
        """Returns how many rows of the queue each of so many walks looks at."""
        return min(self._deep, max(self._depth, _MOST_LOOKED_AT // max(1, walks)))

    def took(self, rows: int, seconds: float) -> None:
        """Learns how long a round took, of so many deliveries."""
        if rows and not self._others_turn:
            fit = int(rows * _HASTY_SECONDS / seconds)
            self._hasty_rows = min(_MOST_HASTY_ROWS, max(_LEAST_HASTY_ROWS, fit))

    def reconnect(self) -> None:
        """Forgets what only one connection's snapshots could tell, and how far it looked: perhaps too far."""
        self._frontier = Frontier()
        self._deep = self._depth

    def walks(
        self,
        lanes: Sequence[Lane],
        *,
        down: Container[str],
        probes: Container[str],
        probing: bool = False,
    ) -> list[Walk]:
        """Returns what to read, in this order: nothing to what is `down`, and little to what is probed.

        Where others go out beside a backlog, the two have their rounds in turn; not while the whole sink is
        probed, of which each round tells whether there is anything to send.
        """
        self._down = sum(name in down or name in probes for name in self._own)
        for lane in lanes:
            lane.separate(self._own)
        read = [name for name in self._own if name not in down]
        in_turn = self._hasty and bool(read) and not probing
        self._others_turn = in_turn and not self._others_turn
        now = monotonic()
        shared = [
            Walk(lane.number, None, lane.floor, self._most, lane.due_after(None, now)) for lane in lanes
        ]
        share = max(1, self.rows // max(1, len(read)))
        own = [
            Walk(
                lane.number,
                name,
                lane.own[name],
                PROBE_ROWS if name in probes else share,
                lane.due_after(name, now),
            )
            for lane in lanes
            for name in read
        ]
        if self._others_turn:
            turns: tuple[Sequence[Walk], ...] = (shared,)
        elif in_turn:
            turns = (own,)
        else:
            turns = (own, shared) if self._own_first else (shared, own)
        return [walk for turn in turns for walk in _from_anywhere(turn)]

    def separate(self, destinations: Iterable[str]) -> None:
        """Gives these destinations lines of their own, each from where its lane stands."""
        self._own.extend(name for name in destinations if name not in self._own)

    def advance(
        self,
        lanes: Sequence[Lane],
        walks: Sequence[Walk],
        batch: Fetched,
        verdict: Verdict,
    ) -> bool:
        """Moves the floors after a round; returns whether the next one has more to look at.

        What is left must be read again, and so must the followers of what is released.
        """
        self._frontier.see(batch.snapshot)
        mine = {lane.number: lane for lane in lanes}
        again = _lowest(batch, verdict.left)
        went_on = False
        now = monotonic()
        for number, walk in _through_due(walks, batch):
            place = batch.due_stops.get(number) or batch.due_ends.get(number)
            mine[walk.lane].look_on(walk.line, place, now, ended=number not in batch.due_stops)
        for number in _lowest(batch, verdict.waiting):
            mine[walks[number].lane].look_anew(walks[number].line)
        for number, reach in _reaches(walks, batch):
            walk = walks[number]
            moved = mine[walk.lane].advance(
                walk.line, min(reach, again.get(number, _END) - 1, self._frontier.id)
            )
            went_on |= moved and number in batch.stops
        self.rewind(lanes, walks, batch, verdict.released())
        with_shared = any(walk.line is None for walk in walks)
        if with_shared:
            self._deepen(batch, went_on=went_on)
        self._divide(lanes, walks, batch)
        more = went_on or (batch.cut and verdict.settled > 0)
        if not self._others_turn:
            self._own_again = more and not with_shared
        return more or self._own_again

    def rewind(
        self, lanes: Sequence[Lane], walks: Sequence[Walk], batch: Fetched, released: Iterable[Delivery]
    ) -> None:
        """Takes floors back to the followers of what is released."""
        mine = {lane.number: lane for lane in lanes}
        for number, first in _lowest(batch, released).items():
            mine[walks[number].lane].rewind(walks[number].line, first - 1)

    def _deepen(self, batch: Fetched, *, went_on: bool) -> None:
        """Looks further while a transaction that is open keeps the floors from following."""
        if not batch.stops:
            self._deep = self._depth
        elif not went_on:
            self._deep = min(2 * self._deep, max(_LONGEST_DEPTH, self._depth))

    def _divide(self, lanes: Sequence[Lane], walks: Sequence[Walk], batch: Fetched) -> None:
        """Gives lines to what has a backlog, and takes them back where nothing is left."""
        shared = _shared(walks, batch)
        walks_past = any(walks[number].line is None for number in batch.stops)
        if self._own and (shared or walks_past):
            self._hasty_until = monotonic() + _HASTY_FOR_SECONDS
        self._own_first = batch.cut and walks[_last(walks, batch)].line is None
        self._unite(lanes, _ended(walks, batch))
        if batch.cut and walks[_last(walks, batch)].line is None:
            room = max(0, _MOST_OWN + self._down - len(self._own))
            least = max(1, len(batch.deliveries) / _BACKLOG)
            backlogs = [name for name, count in shared.most_common(room) if count >= least]
            if backlogs:
                self.separate(backlogs)
                self._own_first = False  # Now for the others.

    def _unite(self, lanes: Sequence[Lane], done: Container[str | None]) -> None:
        for name in [name for name in self._own if name in done]:
            self._own.remove(name)
            for lane in lanes:
                lane.unite(name)


def nothing_for(probed: Iterable[str | None], walks: Sequence[Walk], batch: Fetched) -> Iterator[str | None]:
    """Yields what of the probed (a destination, or None for the sink) has nothing to send in this batch."""
    ended = _ended(walks, batch)
    for name in probed:
        if not (batch.in_line or batch.deferred or batch.stops) if name is None else name in ended:
            yield name


def _ended(walks: Sequence[Walk], batch: Fetched) -> Container[str | None]:
    """Returns the lines that were walked to their end and brought nothing."""
    walked = _last(walks, batch)
    left = {walk.line for walk in walks[walked:]}
    left |= {walks[number].line for number in (*batch.in_line, *batch.deferred, *batch.stops)}
    return {walk.line for walk in walks} - left


def _last(walks: Sequence[Walk], batch: Fetched) -> int:
    """Returns the number of the walk in which a batch was cut, of which something is left to see perhaps."""
    seen = (*batch.in_line, *batch.deferred, *batch.stops, *batch.due_stops, *batch.due_ends)
    return max(seen, default=0) if batch.cut else len(walks)


def _shared(walks: Sequence[Walk], batch: Fetched) -> Counter[str]:
    """Returns how many deliveries of the shared line there are for each destination."""
    counts: Counter[str] = Counter()
    for part in (batch.in_line, batch.deferred):
        for number, deliveries in part.items():
            if walks[number].line is None:
                counts.update(map(_DESTINATION, deliveries))
    return counts


def _lowest(batch: Fetched, deliveries: Iterable[Delivery]) -> dict[int, int]:
    """Returns the lowest id of these deliveries of a batch, by the number of their walk."""
    lowest: dict[int, int] = {}
    ids = {delivery.id for delivery in deliveries}
    if ids:
        for part in (batch.in_line, batch.deferred):
            for number, brought in part.items():
                here = [delivery.id for delivery in brought if delivery.id in ids]
                if here:
                    lowest[number] = min(*here, lowest.get(number, _END))
    return lowest


def _reaches(walks: Sequence[Walk], batch: Fetched) -> Iterator[tuple[int, int]]:
    """Yields the walks that tell how far they looked, by number, and up to which id they saw everything.

    The order within a line comes from its own ORDER BY, but nothing in SQL says that it survives the
    joins above. Where it ever should not, a walk tells nothing.
    """
    last = _last(walks, batch)
    for number, walk in enumerate(walks[: last + 1]):
        ids = [delivery.id for delivery in batch.in_line.get(number, ())]
        is_whole = number in batch.stops or number < last
        if is_whole and len(ids) < walk.most:
            yield number, batch.stops.get(number, _END)
        elif ids and ids == sorted(ids):
            yield number, ids[-1]


def _through_due(walks: Sequence[Walk], batch: Fetched) -> Iterator[tuple[int, Walk]]:
    """Yields the walks that brought all they looked at of what waited for its time."""
    last = _last(walks, batch)
    for number, walk in enumerate(walks[: last + 1]):
        is_whole = number < last or number in batch.due_stops or number in batch.due_ends
        if is_whole and len(batch.deferred.get(number, ())) < min(walk.most, batch.share):
            yield number, walk


def _from_anywhere(walks: Sequence[Walk]) -> Sequence[Walk]:
    """Returns them in turn from one at random on, since the first may fill the batch by itself."""
    first = randrange(len(walks)) if walks else 0  # noqa: S311 - for fairness
    return [*walks[first:], *walks[:first]]
