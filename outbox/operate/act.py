"""What operators do to what is in the queue: try it again, or give it up.

Lanes are locked before rows, as relays do it. A row that a relay is settling at that moment is left
to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    FromClause,
    SmallInteger,
    Table,
    TableValuedAlias,
    Text,
    and_,
    column,
    delete,
    func,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.state import STATE, Selection, pending
from outbox.schema import table

_BATCH = 1_000


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


Picked = Sequence[tuple[str, int, int]]
"""Rows of the queue as (sink, lane, id)."""


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

    What a relay has on its way at that moment may arrive all the same.
    """
    return await _in_batches(connection, selection, _skip)


Action = Callable[[AsyncConnection, Picked], Awaitable[Done]]


async def _in_batches(connection: AsyncConnection, selection: Selection, act: Action) -> Done:
    done, last = Done(), 0
    places = (STATE.c.sink, STATE.c.lane, STATE.c.id)
    while True:
        async with connection.begin():
            after = pending(selection, *places).where(STATE.c.id > last).order_by(STATE.c.id).limit(_BATCH)
            found = [tuple(row) for row in await connection.execute(after)]
            if not found:
                return done
            await _lock_lanes(connection, found)
            # Asked again under the locks: a relay may have changed a row's state before.
            last = found[-1][2]
            again = after.where(STATE.c.id <= last)
            picked = [tuple(row) for row in await connection.execute(again)]
            done += await act(connection, picked)


async def _lock_lanes(connection: AsyncConnection, picked: Picked) -> None:
    lanes = table("outbox_lanes")
    mine = {(sink, lane) for sink, lane, _ in picked}
    await connection.execute(
        select(lanes.c.lane)
        .where(tuple_(lanes.c.sink, lanes.c.lane).in_(mine))
        .order_by(lanes.c.sink, lanes.c.lane)
        .with_for_update()
    )


async def _retry(connection: AsyncConnection, picked: Picked) -> Done:
    queue = table("outbox_queue")
    locked = _locked(picked)
    statement = (
        update(queue)
        .where(_same(queue, locked))
        .values(parked_at=None, due_at=func.clock_timestamp(), attempts=0, blocks=True)
        .returning(queue.c.id)
    )
    changed = list(await connection.scalars(statement))
    return Done(rows=len(changed), busy=len(picked) - len(changed))


async def _skip(connection: AsyncConnection, picked: Picked) -> Done:
    queue, receipts = table("outbox_queue"), table("outbox_receipts")
    locked = _locked(picked)
    gone = (await connection.execute(delete(queue).where(_same(queue, locked)).returning(*queue.c))).all()
    if gone:
        given_up = [{"id": row.id, "outcome": "skipped", "attempts": row.attempts} for row in gone]
        await connection.execute(insert(receipts).on_conflict_do_nothing(), given_up)
    await _tell_owners(connection, {row.sink for row in gone if row.blocks})
    return Done(len(gone), len(picked) - len(gone), sum(row.uncertain for row in gone))


async def _tell_owners(connection: AsyncConnection, ended: set[str]) -> None:
    # What waited may be below its owner's floor. Told in the same transaction, so that nothing newer
    # of the key goes out before it.
    sinks = table("outbox_sinks")
    await connection.execute(
        update(sinks).where(sinks.c.sink.in_(ended)).values(holds_ended=sinks.c.holds_ended + 1)
    )


def _locked(picked: Picked) -> CTE:
    queue, rows = table("outbox_queue"), _unnested(picked)
    places = select(queue.c.sink, queue.c.lane, queue.c.id).join(rows, _same(queue, rows))
    return places.with_for_update(of=queue, skip_locked=True).cte("locked")


def _same(queue: Table, rows: FromClause) -> ColumnElement[bool]:
    return and_(*(queue.c[name] == rows.c[name] for name in ("sink", "lane", "id")))


def _unnested(picked: Picked) -> TableValuedAlias:
    sinks, lanes, ids = ([row[part] for row in picked] for part in range(3))
    arrays = (
        literal(sinks, ARRAY(Text)),
        literal(lanes, ARRAY(SmallInteger)),
        literal(ids, ARRAY(BigInteger)),
    )
    columns = (column("sink", Text), column("lane", SmallInteger), column("id", BigInteger))
    return func.unnest(*arrays).table_valued(*columns, name="picked").render_derived()
