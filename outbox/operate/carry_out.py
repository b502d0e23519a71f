"""Carries operations out, batch by batch: each in one transaction with the place up to which it went.

The transaction holds the operation's row, so that one process at a time is at it, and any goes on from there
when that one ends, however it ends. Batches are short, and wait for nobody: rows that a relay or somebody
else has locked are passed over, and counted. Owners of lanes are told of it in the same transaction.

Retry goes up by the ids: what is released goes out by id, so an earlier one of a key is never released after
a later one. Park goes down, so that of a key what is later never goes out between two batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.errors import describe, unwrapped
from outbox.operate import finding
from outbox.operate.act_statements import (
    DELIVERED,
    EARLIER,
    PARK,
    RECEIPTS,
    RECORD_BATCH,
    REPLAY,
    RETRY,
    SKIP,
    TAKE,
    TROUBLE,
)
from outbox.operate.finding import MOST, Rows
from outbox.operate.integrity import run
from outbox.operate.operations import Operation, operation, replayed, wish_of
from outbox.operate.statements import BY_THE_KEY
from outbox.operate.wishes import Wish

_EARLIER = 10_000
"""So many earlier ones are taken along in one batch."""
_REPLAYED = 500
"""Each with its payload."""
_RECEIPTS = 10_000
_WIDEST = 100_000
"""How many ids a stretch has at most."""
_AT_ONCE = 4
"""So many batches a second write what a rate allows."""
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Done:
    """What became of an act."""

    rows: int = 0
    """Deliveries changed, or written again."""
    left_out: int = 0
    """Deliveries left alone, because an earlier one of their key is parked, or they cannot be written."""
    busy: int = 0
    """Deliveries left alone, because a relay or somebody else was at them."""
    uncertain: int = 0
    """Changed ones that may have arrived all the same."""

    def __add__(self, other: Done) -> Done:
        return Done(
            self.rows + other.rows,
            self.left_out + other.left_out,
            self.busy + other.busy,
            self.uncertain + other.uncertain,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did of an operation."""

    operation: int
    act: str
    done: Done = Done()
    ended: bool = False
    wait: float = 0.0
    """Nothing was done, since nothing is to be for so many seconds."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What one statement did, and where the next begins."""

    sink: str
    reached: int
    done: Done = Done()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Pace:
    """How long a batch takes, and the rest before the next."""

    seconds: float
    rows: int
    rest: float = 0.0


# Each batch that ends a hold has the owners of lanes look from the beginning, for which they need time: so
# few long ones where no relay is at the rows, and a rest after each where one may be.
_PACES = {
    "retry": _Pace(0.5, 20_000),
    "skip": _Pace(0.1, 5_000, rest=0.2),
    "park": _Pace(0.1, 5_000, rest=0.2),
    "replay": _Pace(0.25, 2_000),
}


class Work:
    """The carrying out of operations, over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._width = (0, MOST)
        """How many ids the next stretch of an operation has."""

    async def step(self, number: int | None = None) -> Step | None:
        """Does the next batch of the operation whose turn it is, or of this one.

        Returns None if there is none, or others are at all there are.
        """
        taken = None
        try:
            async with self.connection.begin():
                taken = (await run(self.connection, TAKE, number)).one_or_none()
                if taken is None:
                    return None
                if taken.next_at > taken.now:
                    return Step(taken.id, taken.act, wait=(taken.next_at - taken.now).total_seconds())
                return await self._do(taken)
        except DBAPIError as error:
            if taken is not None:
                await self._tell_trouble(taken.id, describe(unwrapped(error)))
            raise

    async def finish(self, number: int) -> Operation:
        """Carries an operation out to its end, beside relays that are at it; returns what came of it."""
        while True:
            step = await self.step(number)
            if step is None or step.wait:
                found = await operation(self.connection, number)
                if found.ended_at:
                    return found
                await asyncio.sleep(min(step.wait if step else _LOOK_SECONDS, 1.0))

    async def _do(self, taken: Any) -> Step:
        await run(self.connection, BY_THE_KEY)
        wish, pace = wish_of(taken), _PACES[taken.act]
        began, done = monotonic(), Done()
        part = _Part(taken.sink, taken.reached)
        while not part.ended and done.rows < pace.rows and monotonic() - began < pace.seconds:
            part = await self._part(wish, taken, part)
            done += part.done
            if wish.rate:
                break
        rest = done.rows / wish.rate if wish.rate else pace.rest
        counts = (done.rows, done.left_out, done.busy, done.uncertain)
        place = (part.sink, part.reached)
        await run(self.connection, RECORD_BATCH, taken.id, *place, *counts, rest, part.ended)
        return Step(taken.id, taken.act, done, part.ended)

    async def _part(self, wish: Wish, taken: Any, at: _Part) -> _Part:
        if wish.act == "replay":
            return await self._replay(wish, taken, at)
        if taken.ids is not None:
            return await self._of_few(wish, taken, at)
        return await self._of_many(wish, taken, at)

    async def _tell_trouble(self, number: int, reason: str) -> None:
        try:
            async with self.connection.begin():
                await run(self.connection, TROUBLE, number, reason)
        except DBAPIError:
            return  # The first error is the one to tell.

    async def _of_few(self, wish: Wish, taken: Any, at: _Part) -> _Part:
        down = wish.act == "park"
        left = sorted(id_ for id_ in taken.ids if (id_ < at.reached) is down and id_ != at.reached)
        chunk = left[-MOST:] if down else left[:MOST]
        done = Done()
        for rows in await finding.still(self.connection, wish.chosen, chunk):
            more, is_whole = await self._act(wish, rows)
            done += more
            if not is_whole:
                return _Part("", at.reached, done)
        reached = (chunk[0] if down else chunk[-1]) if chunk else at.reached
        return _Part("", reached, done, ended=len(chunk) == len(left))

    async def _of_many(self, wish: Wish, taken: Any, at: _Part) -> _Part:
        down = wish.act == "park"
        selection = wish.chosen
        sink = at.sink or await finding.next_sink(self.connection, selection, "")
        if sink is None:
            return _Part("", at.reached, ended=True)
        first = await finding.next_id(self.connection, sink, at.reached, down=down)
        if first is None or first > taken.up_to:
            following = await finding.next_sink(self.connection, selection, sink)
            begin = taken.up_to + 1 if down else 0
            return _Part(following or sink, begin, ended=following is None)
        width = self._width_of(taken.id)
        last = max(first - width, 0) if down else min(first + width, taken.up_to)
        stretch = min(first, last), max(first, last)
        rows = await finding.within(self.connection, selection, sink, stretch, down=down)
        found = len(rows.ids)
        self._width = taken.id, min(2 * width, _WIDEST) if found < MOST // 2 else MOST
        done, is_whole = await self._act(wish, rows) if found else (Done(), True)
        if not is_whole:
            return _Part(sink, at.reached, done)
        return _Part(sink, rows.ids[-1] if found == MOST else last, done)

    def _width_of(self, number: int) -> int:
        if self._width[0] != number:
            self._width = number, MOST
        return self._width[1]

    async def _act(self, wish: Wish, rows: Rows) -> tuple[Done, bool]:
        """Changes rows; returns also whether that was all there was to change of them."""
        states = [*wish.states, *(["ready"] if "held" in wish.states else [])]
        is_whole = True
        if wish.with_earlier:
            states.append("parked")
            earlier = await self._earlier(rows)
            is_whole = len(earlier.ids) < _EARLIER
            both = Rows(rows.sink, [*earlier.lanes, *rows.lanes], [*earlier.ids, *rows.ids])
            rows = both if is_whole else earlier
        statement = {"retry": RETRY, "skip": SKIP, "park": PARK}[wish.act]
        more = (wish.error or "parked by hand",) if wish.act == "park" else ()
        found = await run(self.connection, statement, rows.sink, rows.lanes, rows.ids, states, *more)
        done = Done(*tuple(found.one()))
        # Where all of those are somebody else's, they are left out, with what comes after them.
        return done, is_whole or not done.rows

    async def _earlier(self, rows: Rows) -> Rows:
        found = await run(self.connection, EARLIER, rows.sink, rows.lanes, rows.ids, _EARLIER)
        lanes, ids = tuple(found.one())
        return Rows(rows.sink, lanes or (), ids or ())

    async def _replay(self, wish: Wish, taken: Any, at: _Part) -> _Part:
        stretch = await run(self.connection, RECEIPTS, at.reached, taken.up_to, _RECEIPTS)
        last, looked = tuple(stretch.one())
        if not looked:
            return _Part("", at.reached, ended=True)
        most = max(1, min(_REPLAYED, int(wish.rate / _AT_ONCE))) if wish.rate else _REPLAYED
        found = await run(self.connection, DELIVERED, at.reached, last, *replayed(wish), most)
        ids = found.scalar_one() or []
        done = await self._write_again(ids, wish.to, taken.replay_id)
        reached = ids[-1] if len(ids) == most else last
        return _Part("", reached, done)

    async def _write_again(self, ids: Sequence[int], to: str | None, replay_id: Any) -> Done:
        if not ids:
            return Done()
        try:
            async with self.connection.begin_nested():
                written = await run(self.connection, REPLAY, list(ids), to, replay_id)
                return Done(rows=written.rowcount)
        except IntegrityError:
            # One that the table did not refuse when it was written.
            if len(ids) == 1:
                return Done(left_out=1)
            half = len(ids) // 2
            first = await self._write_again(ids[:half], to, replay_id)
            return first + await self._write_again(ids[half:], to, replay_id)
