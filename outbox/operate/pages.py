"""Lists of deliveries, a page at a time: each reads a bounded number of rows, and says where it stopped.

A page goes along what an index has in order: what is parked by when it was, what waits by when it is due,
what is done from the newest on, and all of the queue by its ids, lane by lane, merged. What no index tells (a
type, a part of an error) is looked for in the rows of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    SmallInteger,
    Table,
    Text,
    cast,
    column,
    func,
    literal,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.errors import OperatorError
from outbox.operate.integrity import run
from outbox.operate.state import DELIVERY_COLUMNS, DONE, PENDING, STATE, DeliveryState, Selection
from outbox.operate.statements import BY_THE_KEY, PLACES, SINK_OF_GROUP
from outbox.schema import table

LOOKED_AT = 50_000
"""A page looks at so many rows at the most."""
COUNTED = 10_000
"""Counts are exact up to here."""

_STRETCHES = (1_000, LOOKED_AT - 1_000)
"""A few rows first, since they suffice mostly."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    deliveries: Sequence[DeliveryState]
    after: str | None
    """Where the next page begins; None: this was the last."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are."""

    rows: int
    more: bool = False
    """There are more than these, or may be: it was not counted on."""

    def __str__(self) -> str:
        """Returns it for people."""
        return f"{self.rows}+" if self.more else str(self.rows)


async def page(
    connection: AsyncConnection, selection: Selection, limit: int, after: str | None = None
) -> Page:
    """Returns the next deliveries that match; of those in the queue, unless names or states ask for others.

    Where few of many match, it may bring fewer than `limit`, or none, though there are more: `after` says so.
    """
    if selection.named:
        named = select(*DELIVERY_COLUMNS).where(*selection.conditions()).order_by(STATE.c.id).limit(limit)
        return Page([DeliveryState(*row) for row in await connection.execute(named)], None)
    await run(connection, BY_THE_KEY)
    walk = await _walk(connection, selection)
    found: list[DeliveryState] = []
    for rows in _STRETCHES:
        reach = await walk.reach(connection, after, rows)
        matching = walk.matching(after, reach).limit(limit - len(found))
        brought = [tuple(row) for row in await connection.execute(matching)]
        found += [DeliveryState(*row[:-1]) for row in brought]
        after = brought[-1][-1] if len(found) == limit else reach
        if after is None or len(found) == limit:
            break
    return Page(found, after)


async def tally(connection: AsyncConnection, selection: Selection) -> Count:
    """Returns how many match, as far as one page looks and counts."""
    await run(connection, BY_THE_KEY)
    walk = await _walk(connection, selection)
    reach = await walk.reach(connection, None, LOOKED_AT)
    few = walk.matching(None, reach).with_only_columns(literal(1)).limit(COUNTED + 1).subquery()
    rows = await connection.scalar(select(func.count()).select_from(few)) or 0
    return Count(min(rows, COUNTED), reach is not None or rows > COUNTED)


@dataclass(frozen=True, slots=True)
class _Walk:
    """A way through a table, in the order of one of its indexes."""

    selection: Selection
    through: Table
    order: tuple[str, ...]
    where: tuple[ColumnElement[bool], ...] = ()
    places: Sequence[tuple[str, int]] | None = None
    """The lanes that are walked beside each other; None where the order goes across them."""
    newest_first: bool = False

    async def reach(self, connection: AsyncConnection, after: str | None, rows: int) -> str | None:
        """Returns how far about so many rows go; None: to the end."""
        part = max(1, rows // max(1, len(self.places or ())))
        stops = self._beside(self._along(after, None).offset(part - 1).limit(1))
        first = select(self._place(stops)).order_by(*self._sorted(stops)).limit(1)
        found: str | None = await connection.scalar(first)
        return found

    def matching(self, after: str | None, reach: str | None) -> Select[Any]:
        """Makes the statement over what matches up to there, in order, and where in the walk each is."""
        walked = self._beside(self._along(after, reach))
        is_queue = self.through is table("outbox_queue")
        names = ("sink", "lane", "id") if is_queue else ("id",)
        # OFFSET 0 keeps it a look-up for each row.
        delivery = (
            select(*DELIVERY_COLUMNS)
            .where(*(walked.c[name] == STATE.c[name] for name in names))
            .where(STATE.c.pending if is_queue else ~STATE.c.pending, *self.selection.conditions())
            .offset(0)
            .lateral("delivery")
        )
        return (
            select(*delivery.c, self._place(walked))
            .select_from(walked.join(delivery, true()))
            .order_by(*self._sorted(walked))
        )

    def _along(self, after: str | None, reach: str | None) -> Select[Any]:
        names = [*self.through.primary_key.columns.keys()]
        columns = [self.through.c[name] for name in dict.fromkeys((*names, *self.order))]
        place = tuple_(*(self.through.c[name] for name in self.order))
        statement = select(*columns).where(*self.where).order_by(*self._sorted(self.through))
        if after is not None:
            here = self._parsed(after)
            statement = statement.where(place < here if self.newest_first else place > here)
        if reach is not None:
            there = self._parsed(reach)
            statement = statement.where(place >= there if self.newest_first else place <= there)
        return statement

    def _beside(self, walk: Select[Any]) -> FromClause:
        """Returns what a walk of each place brings; they go beside each other."""
        if self.places is None:
            return walk.subquery("walked")
        sinks, lanes = ([place[part] for place in self.places] for part in (0, 1))
        place = (
            func.unnest(literal(sinks, ARRAY(Text)), literal(lanes, ARRAY(SmallInteger)))
            .table_valued(column("sink", Text), column("lane", SmallInteger))
            .render_derived("place")
        )
        here = (self.through.c.sink == place.c.sink, self.through.c.lane == place.c.lane)
        each = walk.where(*here).lateral("each")
        return select(each).select_from(place.join(each, true())).subquery("walked")

    def _sorted(self, columns: FromClause) -> list[ColumnElement[Any]]:
        named: list[ColumnElement[Any]] = [columns.c[name] for name in self.order]
        return [each.desc() for each in named] if self.newest_first else named

    def _place(self, columns: FromClause) -> ColumnElement[str]:
        return func.replace(
            func.concat_ws(",", *(cast(columns.c[name], Text) for name in self.order)), " ", "T"
        )

    def _parsed(self, place: str) -> ColumnElement[Any]:
        values = place.split(",")
        if len(values) != len(self.order) or not values[-1].isdecimal():
            raise OperatorError(
                f"{place} is no place in this list: it ends otherwise, as an earlier page said"
            )
        return tuple_(
            *(
                cast(
                    literal(int(value) if name == "id" else value, None if name == "id" else Text),
                    self.through.c[name].type,
                )
                for name, value in zip(self.order, values, strict=True)
            )
        )


async def _walk(connection: AsyncConnection, selection: Selection) -> _Walk:
    """Chooses the shortest walk on which everything is that may match."""
    queue, states = table("outbox_queue"), set(selection.states)
    if states & set(DONE):
        if states & set(PENDING):
            raise OperatorError(
                "What is done and what is pending are lists of their own: ask for one of them"
            )
        return _Walk(selection, table("outbox_receipts"), ("id",), newest_first=True)
    if selection.group is not None:
        sink = await _sink_of(connection, selection.group)
        of_group = (
            queue.c.parked_at.is_not(None),
            queue.c.sink == sink,
            queue.c.fingerprint == selection.group,
        )
        return _Walk(selection, queue, ("parked_at", "id"), of_group)
    if states == {"parked"}:
        return _Walk(selection, queue, ("parked_at", "id"), (queue.c.parked_at.is_not(None),))
    places = await _places(connection, selection)
    if states and states <= {"scheduled", "retrying"}:
        return _Walk(selection, queue, ("due_at", "id"), (queue.c.due_at.is_not(None),), places)
    return _Walk(selection, queue, ("id",), (), places)


async def _places(connection: AsyncConnection, selection: Selection) -> list[tuple[str, int]]:
    found = await run(connection, PLACES, selection.sink or "", selection.destination, selection.key)
    return [(row.sink, row.lane) for row in found]


async def _sink_of(connection: AsyncConnection, group: int) -> str | None:
    sink: str | None = (await run(connection, SINK_OF_GROUP, group)).scalar()
    return sink
