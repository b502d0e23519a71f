"""Which deliveries an act is about: few by their ids, many by stretches of ids, in their order.

Neighbours by id are neighbours on disk. Lane by lane, each lane would touch all pages of the queue, and a
queue that is larger than the database's memory would be read and written once for each.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, func, literal, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.act_statements import NEXT_ID, PREVIOUS_ID
from outbox.operate.integrity import run
from outbox.operate.state import STATE, Selection, pending
from outbox.schema import LANES, table

MOST = 5_000
"""So many are changed in one batch."""

_WAITING = {"parked", "retrying", "scheduled"}
"""What is none of these has neither time in the queue."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one sink in the queue."""

    sink: str
    lanes: Sequence[int] = ()
    ids: Sequence[int] = ()


async def still(connection: AsyncConnection, selection: Selection, ids: Collection[int]) -> list[Rows]:
    """Returns those of these ids that match, by sink."""
    outbox = table("outbox")
    wanted = literal(list(ids), ARRAY(BigInteger))
    place = select(outbox.c.sink, outbox.c.lane, outbox.c.id).where(outbox.c.id == func.any(wanted))
    named = place.subquery("place")
    unnamed = replace(selection, ids=(), message_ids=())
    # OFFSET 0 keeps it a look-up for each row.
    found = (
        pending(unnamed, STATE.c.id)
        .where(*(STATE.c[name] == named.c[name] for name in ("sink", "lane", "id")))
        .offset(0)
        .lateral("found")
    )
    by_sink = (
        select(named.c.sink, func.array_agg(named.c.lane), func.array_agg(named.c.id))
        .select_from(named.join(found, true()))
        .group_by(named.c.sink)
        .order_by(named.c.sink)
    )
    return [Rows(*row) for row in await connection.execute(by_sink)]


async def within(
    connection: AsyncConnection, selection: Selection, sink: str, stretch: tuple[int, int], *, down: bool
) -> Rows:
    """Returns what matches of a sink between two ids: the lowest, or the highest, and `MOST` at the most."""
    order: ColumnElement[Any] = STATE.c.id.desc() if down else STATE.c.id
    found = _stretch(selection, sink, *stretch).order_by(order).limit(MOST).subquery("found")
    both = select(func.array_agg(found.c.lane), func.array_agg(found.c.id))
    lanes, ids = (await connection.execute(both)).one()
    return Rows(sink, lanes or (), ids or ())


def _stretch(selection: Selection, sink: str, first: int, last: int) -> Select[Any]:
    """Returns what matches of a sink between two ids, in terms that leave no index but the key's."""
    states: list[ColumnElement[bool]] = []
    if selection.states:
        states.append(STATE.c.state.in_(selection.states))
        if _WAITING.issuperset(selection.states):
            # Before it is asked of each whether it is held.
            states.append(func.coalesce(STATE.c.parked_at, STATE.c.due_at).is_not(None))
    return pending(replace(selection, states=()), STATE.c.lane, STATE.c.id).where(
        *states, STATE.c.sink == sink, STATE.c.lane.in_(range(LANES)), STATE.c.id.between(first, last)
    )


async def next_sink(connection: AsyncConnection, selection: Selection, before: str) -> str | None:
    """Returns the next sink of which something is in the queue and may match."""
    sink = table("outbox_queue").c.sink
    statement = select(sink).where(sink > before).order_by(sink).limit(1)
    if selection.sink is not None:
        statement = statement.where(sink == selection.sink)
    found: str | None = await connection.scalar(statement)
    return found


async def next_id(connection: AsyncConnection, sink: str, after: int, *, down: bool) -> int | None:
    """Returns the next id of a sink in the queue, up or down."""
    found: int | None = (await run(connection, PREVIOUS_ID if down else NEXT_ID, sink, after)).scalar_one()
    return found
