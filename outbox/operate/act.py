"""What operators do to deliveries, here and at once.

Each is an operation (see `operations`) that is carried out by who asks, together with relays that are at it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.carry_out import Done, Work
from outbox.operate.operations import Operation, ask, preview
from outbox.operate.state import Selection
from outbox.operate.wishes import Act, Who, Wish


async def retry(connection: AsyncConnection, selection: Selection, **how: Any) -> Done:
    """Tries what is parked or waits for its retry again, now and with all its attempts.

    They go out in the order of their keys. What has an earlier parked one of its key outside the selection is
    left out; `with_earlier=True` takes those along. Other states are left alone.
    """
    return await _act(connection, "retry", selection, **how)


async def skip(connection: AsyncConnection, selection: Selection, **how: Any) -> Done:
    """Gives deliveries up: they leave the queue with a receipt that says `skipped`, and their keys go on.

    Where the sink has a note for it, the readers of their destinations are told. What a relay has on its way
    at that moment may arrive all the same.
    """
    return await _act(connection, "skip", selection, **how)


async def park(connection: AsyncConnection, selection: Selection, **how: Any) -> Done:
    """Stops trying what waits; a person decides later. Their keys go on or wait, as for any that is parked.

    What a relay has on its way at that moment may arrive all the same. `error` says why.
    """
    return await _act(connection, "park", selection, **how)


async def replay(connection: AsyncConnection, selection: Selection, **how: Any) -> Done:
    """Writes messages that were delivered again: new rows in the same order, with the id of the replay.

    Of one sink; `since` and `until` are times of their delivery, `to` another destination, `rate` so many a
    second. Each message goes out once more, however often it did before.
    """
    return await _act(connection, "replay", selection, **how)


async def _act(
    connection: AsyncConnection, act: Act, selection: Selection, *, who: Who | None = None, **how: Any
) -> Done:
    seen = await preview(connection, Wish(act=act, selection=selection, **how))
    if not seen.rows.rows and not seen.rows.more:
        return Done()
    return done(await Work(connection).finish(await ask(connection, seen, who or Who())))


def done(operation: Operation) -> Done:
    """Returns what became of an operation so far."""
    return Done(operation.rows, operation.left_out, operation.busy, operation.uncertain)
