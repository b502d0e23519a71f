"""What operators do where rows of the tables do not fit together: survey all of them, and mend what is amiss.

Both go through the tables a stretch at a time. Who mends holds a lock that keeps a second one waiting; rows
that a relay is settling at that moment are left to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.integrity import look, run
from outbox.operate.statements import (
    DELIVERED,
    FIND_LOST,
    JUDGE_QUEUE,
    LOCK,
    MEND_QUEUE,
    QUEUE_LOST,
    SET_SEQUENCE_ON,
    SINKS,
    SKIP_LOST,
    TELL,
)
from outbox.schema.integrity import FORGET

Lost = Literal["queue", "skip"]
"""What becomes of lost messages: they go out after all, or they get a receipt that says `skipped`."""

_STRETCH_ROWS = 10_000
_KEYS = 100_000
"""For how many keys it is told whether later deliveries went out already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What was found amiss in all of the tables, or what of it was mended."""

    lost: int = 0
    """Messages in neither the queue nor the receipts."""
    overtaken: int = 0
    """Their keys of which later deliveries went out already."""
    again: int = 0
    """In the queue though they were done after they were written: they leave the queue."""
    stale: int = 0
    """In the queue with a receipt that is older than they are, so another's: the receipt goes."""
    ghosts: int = 0
    """In the queue without their message: they are deleted."""
    passed: int = 0
    """In line below what was delivered before they were written: relays look at them at once."""
    behind: int = 0
    """By how much the sequence was behind the ids: it is set on."""

    def __add__(self, other: Damage) -> Damage:
        sums = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        return Damage(**sums)

    def __bool__(self) -> bool:
        """Returns True if anything is amiss."""
        return self != Damage()

    def sentences(self, lost: Lost = "queue") -> Iterator[str]:
        """Says what is amiss, and what `repair` does about it."""
        if self.lost:
            what = (
                "they are queued, and go out" if lost == "queue" else "they get a receipt that says skipped"
            )
            yield f"{self.lost} in neither the queue nor the receipts: {what}."
        if self.overtaken and lost == "queue":
            yield f"Of {self.overtaken} of their keys later deliveries went out already: out of order."
        if self.again:
            yield f"{self.again} in the queue though they were done: they leave the queue."
        if self.stale:
            yield f"{self.stale} with a receipt that is older than they are: it is deleted, and they go out."
        if self.ghosts:
            yield f"{self.ghosts} in the queue without their message: they are deleted."
        if self.passed:
            yield f"{self.passed} with an id below what was delivered before: relays look at them at once."
        if self.behind:
            yield f"The sequence of ids is {self.behind} behind: it is set on."


async def survey(connection: AsyncConnection) -> Damage:
    """Returns what is amiss in all of the tables, however long they are."""
    found, keys = Damage(), _LostKeys()
    async for messages in _messages(connection):
        found += Damage(lost=len(messages.lost))
        keys.add(messages.lost)
        if keys.first:
            async with connection.begin():
                delivered = await run(connection, DELIVERED, messages.after, messages.reached)
                keys.compare(_Delivered._make(row) for row in delivered)
    async for queued in _queued(connection):
        found += queued.found
    async with connection.begin():
        newest = await look(connection)
    return found + Damage(overtaken=len(keys.overtaken), passed=newest.passed, behind=newest.behind)


async def repair(connection: AsyncConnection, lost: Lost = "queue") -> Damage:
    """Mends what is amiss in all of the tables; returns what it mended.

    Lost messages are queued by their ids, so what of their keys is newer and not sent yet goes after them.
    In the end all relays look from the beginning.
    """
    mended = await _mend_ids(connection)
    async for queued in _queued(connection):
        if queued.found:
            mended += await _mend_queue(connection, queued)
    async for messages in _messages(connection):
        if messages.lost:
            mended += await _mend_lost(connection, messages, lost)
    async with connection.begin():
        await run(connection, FORGET)
        # Whoever did that may have ended holds, too.
        await _look_from_the_beginning(connection, (await run(connection, SINKS)).scalars().all())
    return mended


async def _mend_ids(connection: AsyncConnection) -> Damage:
    async with connection.begin():
        found = await look(connection)
        set_on = (await run(connection, SET_SEQUENCE_ON)).all()
    return Damage(passed=found.passed, behind=found.behind if set_on else 0)


async def _mend_queue(connection: AsyncConnection, stretch: _Queued) -> Damage:
    async with connection.begin():
        await run(connection, LOCK)
        found = await run(connection, MEND_QUEUE, *stretch.after, *stretch.reached)
        again, stale, ghosts, ended = tuple(found.one())
        await _look_from_the_beginning(connection, ended)
    return Damage(again=again, stale=stale, ghosts=ghosts)


async def _mend_lost(connection: AsyncConnection, stretch: _Messages, lost: Lost) -> Damage:
    async with connection.begin():
        await run(connection, LOCK)
        statement = QUEUE_LOST if lost == "queue" else SKIP_LOST
        sinks = (await run(connection, statement, stretch.after, stretch.reached)).scalars().all()
        if lost == "queue":
            await _look_from_the_beginning(connection, set(sinks))
    return Damage(lost=len(sinks))


async def _look_from_the_beginning(connection: AsyncConnection, sinks: Iterable[str]) -> None:
    # What was queued, or waited, may be below its owner's floor. Told in the same transaction, so that
    # nothing newer of its key goes out before it; sorted, so that no two wait for each other.
    for sink in sorted(sinks):
        await run(connection, TELL, sink)


class _Lost(NamedTuple):
    id: int
    sink: str
    key_hash: int | None
    """None where it has no key."""


class _Delivered(NamedTuple):
    sink: str
    key_hash: int
    last_id: int


class _LostKeys:
    """The keys of lost messages, and which of them have later deliveries that went out."""

    def __init__(self) -> None:
        self.first: dict[tuple[str, int], int] = {}
        self.overtaken: set[tuple[str, int]] = set()

    def add(self, lost: Iterable[_Lost]) -> None:
        for each in lost:
            if each.key_hash is not None and len(self.first) < _KEYS:
                self.first.setdefault((each.sink, each.key_hash), each.id)

    def compare(self, delivered: Iterable[_Delivered]) -> None:
        for sink, key_hash, last_id in delivered:
            if last_id > self.first.get((sink, key_hash), last_id):
                self.overtaken.add((sink, key_hash))


class _Messages(NamedTuple):
    """A stretch of `outbox`."""

    after: int
    reached: int
    lost: list[_Lost]


async def _messages(connection: AsyncConnection) -> AsyncIterator[_Messages]:
    after = 0
    while True:
        async with connection.begin():
            rows = (await run(connection, FIND_LOST, after, _STRETCH_ROWS)).all()
        reached = rows[0].reached
        if reached is None:
            return
        yield _Messages(after, reached, [_Lost._make(row[1:]) for row in rows if row.id is not None])
        after = reached


class _Place(NamedTuple):
    """A row of the queue."""

    sink: str
    lane: int
    id: int


class _Queued(NamedTuple):
    """A stretch of the queue."""

    after: _Place
    reached: _Place
    found: Damage


async def _queued(connection: AsyncConnection) -> AsyncIterator[_Queued]:
    after = _Place("", 0, 0)
    while True:
        async with connection.begin():
            row = (await run(connection, JUDGE_QUEUE, *after, _STRETCH_ROWS)).one_or_none()
        if row is None:
            return
        again, stale, ghosts, *place = tuple(row)
        reached = _Place._make(place)
        yield _Queued(after, reached, Damage(again=again, stale=stale, ghosts=ghosts))
        after = reached
