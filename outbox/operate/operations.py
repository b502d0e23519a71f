"""Operations: acts that are stored, so that relays carry them out, whatever becomes of who asked.

Who asks sees first what it is about (`preview`). What was chosen then is what is changed: where it is little,
just those ids; else all that matches up to the newest id of that moment. `carry_out` has the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.errors import OperatorError
from outbox.operate.act_statements import ASK, CANCEL, DELIVERED, LEFT_OUT, NEWEST_ID, RECEIPTS
from outbox.operate.finding import still
from outbox.operate.integrity import run
from outbox.operate.pages import COUNTED, Count, page
from outbox.operate.state import STATE, DeliveryState, Selection, pending
from outbox.operate.statements import BY_THE_KEY
from outbox.operate.wishes import Act, Who, Wish, kept, selection_of
from outbox.schema import table

FEW = 10_000
"""So many are chosen one by one, when they are asked for."""
SAMPLE = 20
_RECEIPTS = 10_000
_LOOKS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an act would be about."""

    wish: Wish
    rows: Count
    by_state: Mapping[str, int] = field(default_factory=dict)
    """As far as they were counted."""
    left_out: int = 0
    """Those of which an earlier one of the key is parked and not among them, as far as they were counted."""
    sample: Sequence[DeliveryState] = ()
    up_to: int
    ids: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """An act that was asked for, and how far it is."""

    id: int
    act: Act
    selection: Mapping[str, Any]
    options: Mapping[str, Any]
    expected: int | None
    """How many matched; None: more than were counted."""
    up_to: int
    reached: int
    rows: int
    """Deliveries changed, or written again."""
    left_out: int
    """Left alone, since an earlier one of their key is parked, or they cannot be written."""
    busy: int
    """Left alone, since a relay or somebody else was at them."""
    uncertain: int
    """Changed ones that may have arrived all the same."""
    asked_at: datetime
    asked_by: str
    trouble: str | None
    """Why the last batch failed."""
    ended_at: datetime | None
    cancelled: bool


async def preview(connection: AsyncConnection, wish: Wish) -> Preview:
    """Returns what an act is about, and changes nothing."""
    if wish.act == "replay":
        return await _preview_of_replay(connection, wish)
    if not wish.states:
        return Preview(wish=wish, rows=Count(0), up_to=0, ids=())
    few = pending(wish.chosen, STATE.c.id, STATE.c.state).limit(FEW + 1)
    async with connection.begin():
        found = [tuple(row) for row in await connection.execute(few)]
        newest: int = (await run(connection, NEWEST_ID)).scalar_one()
    states = [state for _, state in found]
    rows = Count(min(len(found), FEW), len(found) > FEW)
    ids = None if rows.more else sorted(id_ for id_, _ in found)
    return Preview(
        wish=wish,
        rows=rows,
        by_state={state: states.count(state) for state in sorted(set(states))},
        left_out=await _left_out(connection, wish, ids or ()),
        sample=await _sample(connection, wish.chosen, ids),
        up_to=newest,
        ids=ids,
    )


async def _sample(
    connection: AsyncConnection, selection: Selection, ids: Sequence[int] | None
) -> Sequence[DeliveryState]:
    if ids is not None:
        selection = Selection(ids=ids[:SAMPLE])
    async with connection.begin():
        return (await page(connection, selection, SAMPLE)).deliveries if ids != [] else ()


async def _left_out(connection: AsyncConnection, wish: Wish, ids: Sequence[int]) -> int:
    if wish.act != "retry" or wish.with_earlier or not ids:
        return 0
    async with connection.begin():
        await run(connection, BY_THE_KEY)
        found = [
            await run(connection, LEFT_OUT, rows.sink, rows.lanes, rows.ids, wish.states)
            for rows in await still(connection, wish.chosen, ids)
        ]
    return sum(each.scalar_one() for each in found)


async def _preview_of_replay(connection: AsyncConnection, wish: Wish) -> Preview:
    chosen = wish.selection
    if chosen.sink is None:
        raise OperatorError("Say of which sink: a message goes to each again by itself")
    if chosen != Selection(
        sink=chosen.sink, destination=chosen.destination, key=chosen.key, type=chosen.type
    ):
        raise OperatorError("What is replayed is told by sink, destination, key, type and time alone")
    found = after = 0
    async with connection.begin():
        await run(connection, BY_THE_KEY)
        newest: int = (await run(connection, NEWEST_ID)).scalar_one()
        for _ in range(_LOOKS):
            last, looked = tuple((await run(connection, RECEIPTS, after, newest, _RECEIPTS)).one())
            if not looked or found > COUNTED:
                break
            ids = await run(connection, DELIVERED, after, last, *replayed(wish), COUNTED + 1)
            found += len(ids.scalar_one() or ())
            after = last
    is_all = not looked
    return Preview(wish=wish, rows=Count(min(found, COUNTED), not is_all), up_to=newest)


def replayed(wish: Wish) -> tuple[str | None, ...]:
    """Returns the parameters of `DELIVERED` that say what is replayed."""
    chosen = wish.selection
    return chosen.sink, chosen.destination, chosen.key, chosen.type, wish.since, wish.until


async def ask(connection: AsyncConnection, seen: Preview, who: Who) -> int:
    """Has relays do what was previewed; returns the operation's id."""
    before = {"rows": str(seen.rows), **seen.by_state}
    if seen.sample:
        before |= {"sample": [_told(each) for each in seen.sample]}
    # The ids are kept beside it, while they are needed.
    selection = kept(seen.wish.selection)
    expected = None if seen.rows.more else seen.rows.rows
    values = (json.dumps(each) for each in (selection, seen.wish.options))
    ids = None if seen.ids is None else list(seen.ids)
    async with connection.begin():
        asked = await run(
            connection,
            ASK,
            seen.wish.act,
            *values,
            seen.up_to,
            ids,
            expected,
            json.dumps(before),
            who.os_user,
            who.login,
            who.reason,
        )
        operation: int = asked.scalar_one()
    return operation


def _told(delivery: DeliveryState) -> dict[str, Any]:
    names = ("id", "state", "attempts", "last_error")
    return {name: getattr(delivery, name) for name in names}


async def cancel(connection: AsyncConnection, operation: int, who: Who) -> bool:
    """Ends an operation where it is; what is done stays done. Returns whether it was open."""
    async with connection.begin():
        found = await run(connection, CANCEL, operation, who.os_user, who.login, who.reason)
        return bool(found.scalar_one())


async def operation(connection: AsyncConnection, number: int) -> Operation:
    """Returns an operation, as far as it is; raises `OperatorError` if there is none of that id."""
    stored = table("outbox_operations")
    statement = select(*_columns()).where(stored.c.id == number)
    async with connection.begin():
        found = (await connection.execute(statement)).one_or_none()
    if found is None:
        raise OperatorError(f"There is no operation {number}: see `outbox acts`")
    return Operation(*found)


async def under_way(connection: AsyncConnection) -> Sequence[Operation]:
    """Returns the operations that have not ended, the first first."""
    stored = table("outbox_operations")
    statement = select(*_columns()).where(stored.c.ended_at.is_(None)).order_by(stored.c.id)
    return [Operation(*row) for row in await connection.execute(statement)]


def _columns() -> list[Any]:
    stored = table("outbox_operations")
    return [stored.c[name] for name in Operation.__dataclass_fields__]


def wish_of(row: Any) -> Wish:
    """Returns what a row of `outbox_operations`, as it was taken, asks for."""
    return Wish(act=row.act, selection=selection_of(row.selection, row.now - row.asked_at), **row.options)
