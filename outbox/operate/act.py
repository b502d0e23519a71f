"""What operators do to what is in the queue: try it again, or give it up.

A million rows are walked once in id order, in short transactions that lock a thousand of them and no lane, so
that no relay waits for its leases. A row that a relay is settling at that moment is left to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    SmallInteger,
    and_,
    case,
    func,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.integrity import run
from outbox.operate.state import STATE, Selection, pending
from outbox.operate.statements import BY_THE_KEY, NEWEST_ID, NEXT_ID, SKIP
from outbox.schema import LANES, table

_BATCH = 1_000
_FEW = 10_000
_WIDEST = 10 * _FEW
"""How many ids a stretch has at most."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of an action."""

    rows: int = 0
    """Deliveries changed."""
    busy: int = 0
    """Deliveries left alone, because a relay was settling them."""
    uncertain: int = 0
    """Changed ones that may have arrived all the same."""

    def __add__(self, other: Done) -> Done:
        return Done(self.rows + other.rows, self.busy + other.busy, self.uncertain + other.uncertain)


class Rows(NamedTuple):
    """Rows of one sink in the queue."""

    sink: str
    places: Sequence[tuple[int, int]]
    """The lane and the id of each."""

    @property
    def lanes(self) -> ColumnElement[Sequence[int]]:
        """The lane of each."""
        return literal([lane for lane, _ in self.places], ARRAY(SmallInteger))

    @property
    def ids(self) -> ColumnElement[Sequence[int]]:
        """The id of each."""
        return literal([id_ for _, id_ in self.places], ARRAY(BigInteger))

    def among(self, queue: FromClause) -> ColumnElement[bool]:
        """The condition that a row of the queue is one of these, looked up as by `lookup.at`."""
        place = func.unnest(self.lanes, self.ids).table_valued("lane", "id").render_derived()
        sink = array([case((place.c.id.is_not(None), self.sink))])
        return and_(queue.c.sink == func.any(sink), queue.c.lane == place.c.lane, queue.c.id == place.c.id)


_RETRIABLE = ("parked", "retrying")


async def retry(connection: AsyncConnection, selection: Selection) -> Done:
    """Tries what is parked or waits for its retry again, now and with all its attempts.

    Its key waits for it until then, as for any retry. Other states are left alone.
    """
    states = [state for state in _RETRIABLE if not selection.states or state in selection.states]
    if not states:
        return Done()
    return await _in_batches(connection, replace(selection, states=states), _retry)


async def skip(connection: AsyncConnection, selection: Selection) -> Done:
    """Gives deliveries up: they leave the queue with a receipt that says `skipped`, and their keys go on.

    Where the sink has a note for it, the readers of their destinations are told.

    What a relay has on its way at that moment may arrive all the same.
    """
    return await _in_batches(connection, selection, _skip)


Action = Callable[[AsyncConnection, Rows], Awaitable[Done]]


async def _in_batches(connection: AsyncConnection, selection: Selection, act: Action) -> Done:
    done = Done()
    async for sink, places in _found(connection, selection):
        for start in range(0, len(places), _BATCH):
            rows = Rows(sink, places[start : start + _BATCH])
            done += await _batch(connection, selection, act, rows)
    return done


async def _batch(connection: AsyncConnection, selection: Selection, act: Action, rows: Rows) -> Done:
    async with _transaction(connection):
        locked = await _locked(connection, rows)
        # Asked again under the locks: a relay may have changed a row's state before.
        still = Rows(rows.sink, await _places(connection, _again(selection, locked)))
        return Done(busy=len(rows.places) - len(locked.places)) + await act(connection, still)


async def _found(connection: AsyncConnection, selection: Selection) -> AsyncIterator[Rows]:
    """Gives what matches, by sink in id order: all at once where it is little, else by stretches of ids."""
    few = pending(selection, STATE.c.sink, STATE.c.id, STATE.c.lane).limit(_FEW + 1)
    async with connection.begin():
        found = sorted(map(tuple, await connection.execute(few)))
        newest = (await run(connection, NEWEST_ID)).scalar_one()
    if len(found) <= _FEW:
        for sink, alike in groupby(found, itemgetter(0)):
            yield Rows(sink, [(lane, id_) for _, id_, lane in alike])
        return
    sink = ""
    while (sink := await _next_sink(connection, selection, sink)) is not None:
        async for rows in _by_stretches(connection, selection, sink, newest):
            yield rows


async def _by_stretches(
    connection: AsyncConnection, selection: Selection, sink: str, newest: int
) -> AsyncIterator[Rows]:
    """Gives what matches of a sink, in stretches of ids up to `newest`.

    Neighbours by id are neighbours on disk. Lane by lane, each lane would touch all pages of the queue, and a
    queue that is larger than the database's memory would be read and written once for each.
    """
    last, width = 0, _FEW
    while (first := await _next_id(connection, sink, last)) is not None and first <= newest:
        last = min(first + width, newest)
        async with _transaction(connection):
            places = await _places(connection, _stretch(selection, sink, first, last))
        width = min(2 * width, _WIDEST) if len(places) < _FEW else _FEW
        yield Rows(sink, places)


def _stretch(selection: Selection, sink: str, first: int, last: int) -> Select[Any]:
    """Returns what matches of a sink between two ids, in terms that leave no index but the key's."""
    states = STATE.c.state.in_(selection.states) if selection.states else true()
    return pending(replace(selection, states=()), STATE.c.lane, STATE.c.id).where(
        states, STATE.c.sink == sink, STATE.c.lane.in_(range(LANES)), STATE.c.id.between(first, last)
    )


def _again(selection: Selection, rows: Rows) -> Select[Any]:
    # Within a stretch, since the planner cannot look rows of the view up by what a join gives.
    first, last = (rows.places[0][1], rows.places[-1][1]) if rows.places else (0, 0)
    return _stretch(selection, rows.sink, first, last).where(STATE.c.id == func.any(rows.ids))


async def _places(connection: AsyncConnection, statement: Select[Any]) -> list[tuple[int, int]]:
    """Returns the lane and the id of each row that a statement finds, in id order."""
    found = await connection.execute(statement)
    return sorted(((lane, id_) for lane, id_ in found), key=itemgetter(1))


async def _next_sink(connection: AsyncConnection, selection: Selection, before: str) -> str | None:
    sink = table("outbox_queue").c.sink
    statement = select(sink).where(sink > before).order_by(sink).limit(1)
    if selection.sink is not None:
        statement = statement.where(sink == selection.sink)
    async with _transaction(connection):
        found: str | None = await connection.scalar(statement)
    return found


async def _next_id(connection: AsyncConnection, sink: str, before: int) -> int | None:
    async with _transaction(connection):
        found: int | None = (await run(connection, NEXT_ID, sink, before, LANES)).scalar_one()
    return found


@asynccontextmanager
async def _transaction(connection: AsyncConnection) -> AsyncIterator[None]:
    async with connection.begin():
        await run(connection, BY_THE_KEY)
        yield


async def _locked(connection: AsyncConnection, rows: Rows) -> Rows:
    """Locks rows of the queue until the transaction ends; returns those that nobody else has locked."""
    queue = table("outbox_queue")
    free = select(queue.c.lane, queue.c.id).where(rows.among(queue))
    free = free.with_for_update(of=queue, skip_locked=True)
    return Rows(rows.sink, await _places(connection, free))


async def _retry(connection: AsyncConnection, rows: Rows) -> Done:
    queue = table("outbox_queue")
    now = func.clock_timestamp()
    changed = (
        update(queue).where(rows.among(queue)).values(parked_at=None, due_at=now, attempts=0, blocks=True)
    )
    await connection.execute(changed)
    return Done(rows=len(rows.places))


async def _skip(connection: AsyncConnection, rows: Rows) -> Done:
    lanes, ids = [lane for lane, _ in rows.places], [id_ for _, id_ in rows.places]
    ended, uncertain = tuple((await run(connection, SKIP, rows.sink, lanes, ids)).one())
    if ended:
        await _tell_owners(connection, rows.sink)
    return Done(len(ids), uncertain=uncertain)


async def _tell_owners(connection: AsyncConnection, sink: str) -> None:
    # What waited may be below its owner's floor. Told in the same transaction, so that nothing newer
    # of the key goes out before it.
    sinks = table("outbox_sinks")
    await connection.execute(
        update(sinks).where(sinks.c.sink == sink).values(holds_ended=sinks.c.holds_ended + 1)
    )
