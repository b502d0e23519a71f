"""What operators do to what is in the queue: try it again, or give it up.

A million rows are walked once, in short transactions that lock a thousand of them and no lane, so that no
relay waits for its leases. A row that a relay is settling at that moment is left to it.
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
    and_,
    func,
    literal,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.integrity import run
from outbox.operate.state import STATE, Selection, pending
from outbox.operate.statements import SKIP
from outbox.schema import table

_BATCH = 1_000
_FEW = 10_000

# Statistics may be older than the queue's content, and any other plan reads all of it for each batch.
_BY_THE_KEY = text("""
    SELECT set_config(name, 'off', true)
    FROM unnest(CAST('{enable_sort,enable_bitmapscan,enable_seqscan,enable_hashjoin,enable_mergejoin,jit}'
                     AS text[])) AS name
""")


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
    """Rows of the queue, all in one lane."""

    sink: str
    lane: int
    ids: Sequence[int]

    def among(self, columns: FromClause) -> ColumnElement[bool]:
        """The condition that a row is one of these."""
        ids = columns.c.id == func.any(literal(self.ids, ARRAY(BigInteger)))
        return and_(columns.c.sink == self.sink, columns.c.lane == self.lane, ids)


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
    async for sink, lane, ids in _found(connection, selection):
        for start in range(0, len(ids), _BATCH):
            done += await _batch(connection, selection, act, Rows(sink, lane, ids[start : start + _BATCH]))
    return done


async def _batch(connection: AsyncConnection, selection: Selection, act: Action, rows: Rows) -> Done:
    async with _transaction(connection):
        locked = await _locked(connection, rows)
        # Asked again under the locks: a relay may have changed a row's state before.
        again = _by_the_key(selection, STATE.c.id).where(locked.among(STATE))
        still = locked._replace(ids=list(await connection.scalars(again)))
        return Done(busy=len(rows.ids) - len(locked.ids)) + await act(connection, still)


async def _found(connection: AsyncConnection, selection: Selection) -> AsyncIterator[Rows]:
    """Gives what matches: all at once where it is little, else lane by lane, each of which is read once."""
    places = (STATE.c.sink, STATE.c.lane, STATE.c.id)
    async with connection.begin():
        few = await connection.execute(pending(selection, *places).limit(_FEW + 1))
        found = sorted(map(tuple, few))
    if len(found) <= _FEW:
        for (sink, lane), alike in groupby(found, itemgetter(0, 1)):
            yield Rows(sink, lane, [id_ for *_, id_ in alike])
        return
    place = None
    while place := await _next_lane(connection, selection, place):
        here = _by_the_key(selection, STATE.c.id).order_by(STATE.c.id)
        async with _transaction(connection):
            ids = await connection.scalars(here.where(STATE.c.sink == place.sink, STATE.c.lane == place.lane))
            rows = Rows(place.sink, place.lane, list(ids))
        yield rows


def _by_the_key(selection: Selection, *columns: Any) -> Select[Any]:
    """The same as `pending`, in terms that leave the planner no index but that of the key."""
    states = STATE.c.state.in_(selection.states) if selection.states else true()
    return pending(replace(selection, states=()), *columns).where(states)


async def _next_lane(connection: AsyncConnection, selection: Selection, before: Any) -> Any:
    queue = table("outbox_queue")
    place = (queue.c.sink, queue.c.lane)
    statement = select(*place).order_by(*place).limit(1)
    if before:
        statement = statement.where(tuple_(*place) > tuple_(*before))
    if selection.sink is not None:
        statement = statement.where(queue.c.sink == selection.sink)
    async with _transaction(connection):
        return (await connection.execute(statement)).first()


@asynccontextmanager
async def _transaction(connection: AsyncConnection) -> AsyncIterator[None]:
    async with connection.begin():
        await connection.execute(_BY_THE_KEY)
        yield


async def _locked(connection: AsyncConnection, rows: Rows) -> Rows:
    """Locks rows of the queue until the transaction ends; returns those that nobody else has locked."""
    queue = table("outbox_queue")
    free = select(queue.c.id).where(rows.among(queue)).with_for_update(skip_locked=True)
    return rows._replace(ids=list(await connection.scalars(free)))


async def _retry(connection: AsyncConnection, rows: Rows) -> Done:
    queue = table("outbox_queue")
    now = func.clock_timestamp()
    changed = (
        update(queue).where(rows.among(queue)).values(parked_at=None, due_at=now, attempts=0, blocks=True)
    )
    await connection.execute(changed)
    return Done(rows=len(rows.ids))


async def _skip(connection: AsyncConnection, rows: Rows) -> Done:
    ended, uncertain = tuple((await run(connection, SKIP, *rows)).one())
    if ended:
        await _tell_owners(connection, rows.sink)
    return Done(len(rows.ids), uncertain=uncertain)


async def _tell_owners(connection: AsyncConnection, sink: str) -> None:
    # What waited may be below its owner's floor. Told in the same transaction, so that nothing newer
    # of the key goes out before it.
    sinks = table("outbox_sinks")
    await connection.execute(
        update(sinks).where(sinks.c.sink == sink).values(holds_ended=sinks.c.holds_ended + 1)
    )
