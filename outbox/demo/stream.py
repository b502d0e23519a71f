"""The live stream: teachers whose uploads get their slots, each told in the transaction that assigns it.

Now and then a transaction is rolled back at its end, to see that nothing of it is told. A transaction
of which it is not known whether it was committed, because the database went away, is written again as
it was, the same rows and the same message ids, so that it takes place once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from random import random
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Text, Uuid, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import Message, OperatorError, Settings, new_id, write
from outbox.demo.ledger import Ledger
from outbox.huleedu.els.publish import NOTIFY_WITHIN, event_message, notification, notification_message
from outbox.huleedu.events import SLOT_ASSIGNED, EssaySlotAssignedV1
from outbox.operate import connect
from outbox.schema import table

_TEACHERS = 8
_SLOTS = 30  # of a batch
_ROLL_BACK_EVERY = 20
_TRY_AGAIN_SECONDS = 0.2
_LATEST_SECONDS = 1.0  # who is later than this does not make up for it

_assignments = Table(
    "outbox_demo_assignments",
    MetaData(),
    Column("batch_id", Text, primary_key=True),
    Column("slot_index", Integer, primary_key=True, autoincrement=False),
    Column("file_upload_id", Text, nullable=False),
    Column("message_id", Uuid, nullable=False),
    Column("assigned_at", DateTime(timezone=True), nullable=False),
)

Ledgers = Mapping[str, Ledger]
"""By sink."""


async def prepare(settings: Settings) -> None:
    """Makes the table of the business rows, if it is not there."""
    async with connect(settings) as connection:
        await connection.run_sync(_assignments.metadata.create_all)
        await connection.commit()


async def enter_leftover(settings: Settings, ledgers: Ledgers) -> set[str]:
    """Enters what earlier runs wrote and nobody has delivered yet; returns the Redis channels it goes to."""
    outbox, queue = table("outbox"), table("outbox_queue")
    leftover = (
        select(outbox.c.sink, outbox.c.key, outbox.c.message_id, outbox.c.destination)
        .join(queue, queue.c.id == outbox.c.id)
        .join(_assignments, _assignments.c.message_id == outbox.c.message_id)
        .where(queue.c.parked_at.is_(None))
        .order_by(outbox.c.id)
    )
    async with connect(settings) as connection:
        rows = (await connection.execute(leftover)).all()
    for row in rows:
        ledgers[row.sink].enter(row.key, row.message_id)
    return {row.destination for row in rows if row.sink == "redis"}


class Stream:
    """Writes about `rate` messages a second, each to Kafka and to Redis, until it is stopped."""

    def __init__(self, settings: Settings, ledgers: Ledgers, rate: float) -> None:
        self._stopping = asyncio.Event()
        run = uuid4().hex[:6]
        self._teachers = [
            _Teacher(f"{run}-{number}", _TEACHERS / rate, settings, ledgers)
            for number in range(1, _TEACHERS + 1)
        ]

    @property
    def users(self) -> list[str]:
        """The users whose browsers are told."""
        return [teacher.user_id for teacher in self._teachers]

    @property
    def written(self) -> int:
        """How many messages were committed; each goes to both sinks."""
        return sum(teacher.assigned for teacher in self._teachers)

    @property
    def committed(self) -> int:
        """How many transactions were committed."""
        return sum(teacher.committed for teacher in self._teachers)

    @property
    def rolled_back(self) -> int:
        """How many transactions were rolled back, on purpose."""
        return sum(teacher.rolled_back for teacher in self._teachers)

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written; None if it can."""
        return next((teacher.trouble for teacher in self._teachers if teacher.trouble), None)

    @property
    def unsure(self) -> set[UUID]:
        """The messages of which it is not known whether they are committed."""
        return {each.message_id for teacher in self._teachers for each in teacher.open}

    def stop(self) -> None:
        """Begins no further transaction."""
        self._stopping.set()

    async def run(self) -> None:
        """Writes until stopped; what is open then is still written, as soon as the database allows."""
        async with asyncio.TaskGroup() as group:
            for teacher in self._teachers:
                group.create_task(teacher.run(self._stopping))


@dataclass(frozen=True, slots=True)
class _Assignment:
    """An upload that gets its slot, and what is said of it."""

    message_id: UUID
    row: Mapping[str, Any]
    messages: Sequence[Message]


class _Teacher:
    """One user, who fills one batch after the other, an essay about every `interval` seconds."""

    def __init__(self, name: str, interval: float, settings: Settings, ledgers: Ledgers) -> None:
        self.user_id = f"teacher-{name}"
        self.open: list[_Assignment] = []
        """What the transaction under way says."""
        self.assigned = 0
        self.committed = 0
        self.rolled_back = 0
        self.trouble: str | None = None
        self._name = name
        self._interval = interval
        self._settings = settings
        self._ledgers = ledgers
        self._next_at = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Uploads until it is time to stop."""
        self._next_at = monotonic() + self._interval * random()  # noqa: S311
        while self.open or not stopping.is_set():
            try:
                async with connect(self._settings) as connection:
                    await self._work(connection, stopping)
            except OperatorError as error:
                self.trouble = str(error)
                await asyncio.sleep(_TRY_AGAIN_SECONDS)

    async def _work(self, connection: AsyncConnection, stopping: asyncio.Event) -> None:
        while self.open or await self._due(stopping):
            if not self.open:
                count = self._uploads_due()
                if self.committed % _ROLL_BACK_EVERY == 1:
                    await self._roll_back(connection, self._next(count))
                self.open = self._next(count)
                self._enter(self.open)
            async with connection.begin():
                await self._write(connection, self.open)
            self.assigned += len(self.open)
            self.committed += 1
            self.open, self.trouble = [], None

    async def _due(self, stopping: asyncio.Event) -> bool:
        """Waits for the next upload; returns False when it is time to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._next_at - monotonic()):
                await stopping.wait()
        return not stopping.is_set()

    def _uploads_due(self) -> int:
        """Returns how many uploads the next transaction has, all of one batch."""
        late = min(monotonic() - self._next_at, _LATEST_SECONDS)
        left = _SLOTS - self.assigned % _SLOTS
        count = min(1 + int(max(0.0, late) / self._interval), left)
        self._next_at = monotonic() - late + count * self._interval
        return count

    def _next(self, count: int) -> list[_Assignment]:
        return [self._assignment(number) for number in range(self.assigned, self.assigned + count)]

    def _assignment(self, number: int) -> _Assignment:
        batch, slot = divmod(number, _SLOTS)
        now, message_id, correlation_id, upload = datetime.now(UTC), new_id(), uuid4(), uuid4().hex[:12]
        event = EssaySlotAssignedV1(
            batch_id=f"batch-{self._name}-{batch + 1}",
            essay_id=f"essay-{self._name}-{number + 1}",
            file_upload_id=f"upload-{upload}",
            text_storage_id=f"text-{upload}",
            original_file_name=f"essay {slot + 1}.docx",
            slot_index=slot,
            correlation_id=correlation_id,
            timestamp=now,
        )
        told = notification(event, correlation_id, now, message_id)
        row = {name: getattr(event, name) for name in ("batch_id", "slot_index", "file_upload_id")}
        return _Assignment(
            message_id,
            {**row, "message_id": message_id, "assigned_at": now},
            [
                event_message(SLOT_ASSIGNED, event, correlation_id, now, message_id),
                notification_message(SLOT_ASSIGNED, self.user_id, told, now + NOTIFY_WITHIN),
            ],
        )

    async def _write(self, connection: AsyncConnection, assignments: Sequence[_Assignment]) -> None:
        rows = [each.row for each in assignments]
        await connection.execute(insert(_assignments).on_conflict_do_nothing(), rows)
        messages = [message for each in assignments for message in each.messages]
        await write(connection, *messages, settings=self._settings)

    async def _roll_back(self, connection: AsyncConnection, assignments: Sequence[_Assignment]) -> None:
        self._enter(assignments)
        try:
            async with connection.begin() as transaction:
                await self._write(connection, assignments)
                await transaction.rollback()
        finally:
            for each in assignments:
                for message in each.messages:
                    self._ledgers[message.sink].withdraw(str(message.key), each.message_id)
        self.rolled_back += 1

    def _enter(self, assignments: Sequence[_Assignment]) -> None:
        for each in assignments:
            for message in each.messages:
                self._ledgers[message.sink].enter(str(message.key), each.message_id)
