"""What operators pause: a sink, a destination or a key, until some time or until somebody resumes it.

Each fetch of a relay reads the pauses in its own snapshot, so the next one obeys, and nothing overtakes what
waited when they end. Where nothing is paused, that costs a fetch a look at an empty table.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.errors import OperatorError
from outbox.operate.audit import record
from outbox.operate.wishes import Who
from outbox.schema import table


def said(time: datetime | None) -> str:
    """Returns a time as sentences have it."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if time else "long ago"


@dataclass(frozen=True, slots=True)
class Place:
    """What may be paused: all of a sink, one of its destinations, or one key of that."""

    sink: str
    destination: str | None = None
    key: str | None = None

    def __str__(self) -> str:
        """Returns it for people."""
        return "".join(
            (
                self.sink,
                f": {self.destination}" if self.destination is not None else "",
                f", key {self.key}" if self.key is not None else "",
            )
        )

    @property
    def resume_command(self) -> str:
        """What resumes it."""
        options = {"--destination": self.destination, "--key": self.key}
        said = (f" {name} {shlex.quote(value)}" for name, value in options.items() if value is not None)
        return f"outbox resume {self.sink}{''.join(said)}"


@dataclass(frozen=True, slots=True)
class Pause:
    """A place that is paused."""

    place: Place
    since: datetime
    until: datetime | None
    """None: until somebody resumes it."""
    reason: str | None
    paused_by: str

    @property
    def sentence(self) -> str:
        """Says it to people."""
        until = f" until {said(self.until)}" if self.until else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.place} is paused since {said(self.since)}{until}, by {self.paused_by}{reason}."


async def pause(
    connection: AsyncConnection,
    place: Place,
    *,
    paused_by: str,
    lasts: timedelta | None = None,
    reason: str | None = None,
) -> int:
    """Lets relays send nothing there from their next fetch on; what is on its way arrives.

    A pause of the same place is replaced. Returns the act in the record. Raises `OperatorError` for a sink
    that nobody knows.
    """
    if place.key is not None and place.destination is None:
        raise OperatorError("A key is one of a destination: say which")
    pauses, now = table("outbox_pauses"), func.clock_timestamp()
    async with connection.begin():
        await _check(connection, place.sink)
        await connection.execute(delete(pauses).where(or_(_at(place), pauses.c.until <= now)))
        values = {
            "sink": place.sink,
            "destination": place.destination,
            "key": place.key,
            "reason": reason,
            "paused_by": paused_by,
            "until": None if lasts is None else now + lasts,
        }
        await connection.execute(insert(pauses).values(values))
        after = {"seconds": lasts.total_seconds()} if lasts else None
        return await record(
            connection, "pause", Who(paused_by, reason=reason), selection=_named(place), after=after
        )


def _named(place: Place) -> dict[str, str]:
    return {name: value for name in Place.__slots__ if (value := getattr(place, name)) is not None}


async def resume(connection: AsyncConnection, place: Place, who: Who | None = None) -> int | None:
    """Ends the pause of exactly this place; returns the act in the record, or None if there was none.

    What waited goes out from the next fetch on, before what was written since.
    """
    pauses = table("outbox_pauses")
    async with connection.begin():
        ended = await connection.execute(delete(pauses).where(_at(place)).returning(pauses.c.until))
        if not ended.all():
            return None
        return await record(connection, "resume", who or Who(), selection=_named(place))


async def pauses(connection: AsyncConnection) -> Sequence[Pause]:
    """Returns what is paused now, the longest first."""
    paused = table("outbox_pauses")
    columns = (
        paused.c[name] for name in ("sink", "destination", "key", "since", "until", "reason", "paused_by")
    )
    in_force = func.coalesce(paused.c.until > func.now(), True)
    found = await connection.execute(select(*columns).where(in_force).order_by(paused.c.since))
    return [Pause(Place(*row[:3]), *row[3:]) for row in map(tuple, found)]


def _at(place: Place) -> ColumnElement[bool]:
    pauses = table("outbox_pauses")
    return (
        (pauses.c.sink == place.sink)
        & pauses.c.destination.is_not_distinct_from(place.destination)
        & pauses.c.key.is_not_distinct_from(place.key)
    )


async def _check(connection: AsyncConnection, sink: str) -> None:
    sinks = table("outbox_sinks")
    known = sorted(await connection.scalars(select(sinks.c.sink)))
    if sink not in known:
        raise OperatorError(f"No relay ever served a sink {sink}; there are: {', '.join(known) or 'none'}")
