"""Input that could not be used: kept with the reason until a person decides, or it is too old.

A person lists it, mends the cause and asks for another try, which its consumer makes within seconds; or
drops it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiokafka import ConsumerRecord
from sqlalchemy import ColumnElement, RowMapping, case, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.huleedu.consume.incoming import text_of
from outbox.huleedu.consume.refusal import Refusal
from outbox.huleedu.schema import parked_input as table

_PARK = text("""
    INSERT INTO huleedu_parked_input (
        consumer, topic, partition, partition_offset, key, value, headers, kind, reason
    )
    SELECT :consumer, topic, partition, partition_offset, key, value, headers::jsonb, kind, reason
    FROM unnest(
        CAST(:topic AS text[]), CAST(:partition AS integer[]), CAST(:partition_offset AS bigint[]),
        CAST(:key AS bytea[]), CAST(:value AS bytea[]), CAST(:headers AS text[]),
        CAST(:kind AS text[]), CAST(:reason AS text[])
    ) WITH ORDINALITY AS given (
        topic, partition, partition_offset, key, value, headers, kind, reason, position
    )
    ORDER BY position
    ON CONFLICT DO NOTHING
""")


async def park(
    connection: AsyncConnection, consumer: str, refused: Sequence[tuple[ConsumerRecord, Refusal]]
) -> None:
    """Keeps records that a consumer cannot use, each once."""
    columns: dict[str, Any] = {
        "consumer": consumer,
        "topic": [record.topic for record, _ in refused],
        "partition": [record.partition for record, _ in refused],
        "partition_offset": [record.offset for record, _ in refused],
        "key": [record.key for record, _ in refused],
        "value": [record.value for record, _ in refused],
        "headers": [_headers(record) for record, _ in refused],
        "kind": [why.kind for _, why in refused],
        "reason": [text_of(why.reason) for _, why in refused],
    }
    await connection.execute(_PARK, columns)


def _headers(record: ConsumerRecord) -> str:
    pairs = {text_of(name): None if value is None else text_of(value) for name, value in record.headers}
    return json.dumps(pairs)


@dataclass(frozen=True, slots=True)
class Parked:
    """A record that could not be used."""

    id: int
    consumer: str
    topic: str
    partition: int
    partition_offset: int
    kind: str
    reason: str
    parked_at: datetime
    retry_at: datetime | None
    """Since when another try is asked for."""


@dataclass(frozen=True, slots=True)
class Which:
    """Which parked records: those with all of what is given."""

    ids: Sequence[int] = ()
    consumer: str | None = None
    topic: str | None = None
    kind: str | None = None
    reason: str | None = None
    """A part of it."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """Returns what a row must fulfil."""
        equal = {"consumer": self.consumer, "topic": self.topic, "kind": self.kind}
        found = [table.c[name] == value for name, value in equal.items() if value is not None]
        if self.ids:
            found.append(table.c.id.in_(self.ids))
        if self.reason is not None:
            found.append(table.c.reason.contains(self.reason, autoescape=True))
        return found


_AT_ONCE = 20

_SHOWN = [table.c[name] for name in Parked.__dataclass_fields__]


async def find(connection: AsyncConnection, which: Which, limit: int | None = None) -> list[Parked]:
    """Returns parked records, the oldest first."""
    rows = await connection.execute(
        select(*_SHOWN).where(*which.conditions()).order_by(table.c.id).limit(limit)
    )
    return [Parked(*row) for row in rows]


async def count(connection: AsyncConnection, which: Which) -> int:
    """Returns how many there are."""
    return await connection.scalar(select(func.count()).select_from(table).where(*which.conditions())) or 0


async def content(connection: AsyncConnection, number: int) -> RowMapping | None:
    """Returns a record's key, value and headers; None if there is no such record."""
    shown = select(table.c.key, table.c.value, table.c.headers).where(table.c.id == number)
    return (await connection.execute(shown)).mappings().one_or_none()


async def ask_for_retry(connection: AsyncConnection, which: Which) -> int:
    """Has their consumers try them again; returns how many."""
    asked = update(table).where(*which.conditions()).values(retry_at=func.clock_timestamp())
    return (await connection.execute(asked)).rowcount


async def drop(connection: AsyncConnection, which: Which) -> int:
    """Forgets them; returns how many."""
    return (await connection.execute(delete(table).where(*which.conditions()))).rowcount


async def prune(connection: AsyncConnection, consumer: str, older_than: timedelta, limit: int) -> int:
    """Forgets what was parked longer ago, at most so many; returns how many."""
    old = (
        select(table.c.id)
        .where(table.c.consumer == consumer, table.c.parked_at < func.clock_timestamp() - older_than)
        .limit(limit)
    )
    return (await connection.execute(delete(table).where(table.c.id.in_(old)))).rowcount


async def by_kind(connection: AsyncConnection, consumer: str) -> Mapping[str, int]:
    """Returns how many a consumer has parked, by kind."""
    counted = (
        select(table.c.kind, func.count().label("number"))
        .where(table.c.consumer == consumer)
        .group_by(table.c.kind)
    )
    return {row.kind: row.number for row in await connection.execute(counted)}


async def asked_for(connection: AsyncConnection, consumer: str) -> list[tuple[int, ConsumerRecord]]:
    """Returns some of a consumer's records that are to be tried again, with their ids: who waits longest."""
    wanted = (
        select(table)
        .where(table.c.consumer == consumer, table.c.retry_at.is_not(None))
        .order_by(table.c.retry_at, table.c.id)
        .limit(_AT_ONCE)
    )
    return [(row.id, _record(row)) for row in await connection.execute(wanted)]


async def remove(connection: AsyncConnection, number: int) -> None:
    """Forgets a record that was applied after all."""
    await connection.execute(delete(table).where(table.c.id == number))


async def put_off(connection: AsyncConnection, number: int) -> None:
    """Has a record wait behind the others that are to be tried again."""
    await connection.execute(
        update(table).where(table.c.id == number).values(retry_at=func.clock_timestamp())
    )


async def park_again(connection: AsyncConnection, number: int, why: Refusal) -> None:
    """Records why a record still cannot be used; where nothing of it is here, the reason says why."""
    reason = case((table.c.value.is_(None), table.c.reason), else_=text_of(why.reason))
    again = update(table).where(table.c.id == number)
    await connection.execute(again.values(kind=why.kind, reason=reason, retry_at=None))


def _record(row: Any) -> ConsumerRecord:
    headers = tuple((name, None if value is None else value.encode()) for name, value in row.headers.items())
    when = int(row.parked_at.timestamp() * 1_000)
    place = (row.topic, row.partition, row.partition_offset)
    return ConsumerRecord(*place, when, 0, row.key, row.value, None, -1, -1, headers)
