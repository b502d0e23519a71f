"""The way of a message, and of what followed from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.devstack import Postgres
from outbox.devstack.postgres import wheel_binaries
from outbox.migrate import upgrade
from outbox.operate import connect
from outbox.settings import Settings
from tests.support import sql
from tests.support.postgres import migrate


def on(url: str, **more: Any) -> Settings:
    return Settings.model_validate({"database_url": url, **more})


@pytest.fixture
async def writer(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as connection:
        yield connection


@pytest.fixture
async def operator(database: str) -> AsyncIterator[AsyncConnection]:
    async with connect(on(database)) as connection:
        yield connection


async def write(
    writer: asyncpg.Connection,
    correlation_id: str | None = None,
    *,
    sinks: tuple[str, ...] = ("kafka",),
    message_id: UUID | None = None,
) -> UUID:
    """A message to each of these sinks; its id."""
    message_id = message_id or uuid4()
    for sink in sinks:
        await writer.execute(
            "INSERT INTO outbox (message_id, type, sink, destination, headers)"
            " VALUES ($1, 't', $2, 'd', jsonb_strip_nulls(jsonb_build_object('correlation_id', $3::text)))",
            message_id,
            sink,
            correlation_id,
        )
    return message_id


async def test_a_message_with_each_of_its_deliveries(
    writer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    async with writer.transaction():
        message_id = await write(writer, "c-1", sinks=("kafka", "redis", "own", "late"))
    await write(writer, "c-1")
    for sink, place in (("kafka", "2, 41, NULL"), ("redis", "NULL, NULL, 3")):
        await writer.execute(
            "WITH done AS (DELETE FROM outbox_queue WHERE sink = $1 RETURNING id, attempts)"
            " INSERT INTO outbox_receipts (id, outcome, attempts, partition, partition_offset, receivers)"
            f" SELECT done.id, 'delivered', done.attempts, {place}"
            " FROM done JOIN outbox USING (id) WHERE message_id = $2",
            sink,
            message_id,
        )
    await writer.execute(
        "UPDATE outbox_queue SET attempts = 2, last_error = 'refused', blocks = true,"
        " due_at = clock_timestamp() + interval '1 hour' WHERE sink = 'own'"
    )
    found = await operate.trace(operator, message_id)
    assert found is not None
    assert (found.message_id, found.type, found.correlation_id) == (message_id, "t", "c-1")
    kafka, redis, own, late = found.deliveries
    assert (kafka.state, kafka.partition, kafka.partition_offset) == ("delivered", 2, 41)
    assert (redis.state, redis.receivers) == ("delivered", 3)
    assert (own.state, own.attempts, own.last_error) == ("retrying", 2, "refused")
    assert (late.state, late.settled_at) == ("ready", None)
    assert found.committed_at is not None
    assert found.written_at < found.committed_at < max(filter(None, (kafka.settled_at, redis.settled_at)))


async def test_a_replay_is_a_delivery_of_the_same_message(
    writer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    message_id = await write(writer)
    await writer.execute(
        "INSERT INTO outbox (message_id, type, sink, destination, replay_id)"
        " VALUES ($1, 't', 'kafka', 'd', gen_random_uuid())",
        message_id,
    )
    found = await operate.trace(operator, message_id)
    assert found is not None
    first, second = found.deliveries
    assert (first.replay_id, found.written_at) == (None, first.created_at)
    assert second.replay_id is not None


async def test_what_is_not_there_has_no_trace(operator: AsyncConnection) -> None:
    assert await operate.trace(operator, uuid4()) is None
    assert await operate.follow(operator, uuid4()) == []


async def test_what_followed_has_the_same_correlation_id_and_was_written_later(
    writer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await write(writer, "c-1")
    own = await write(writer, "c-1", sinks=("kafka", "redis"))
    await write(writer, "c-2")
    follower = await write(writer, "c-1")
    found = await operate.follow(operator, own)
    assert [(each.message_id, len(each.deliveries)) for each in found] == [(own, 2), (follower, 1)]


async def test_nothing_follows_from_a_message_without_a_correlation_id(
    writer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    own = await write(writer)
    await write(writer)
    assert [each.message_id for each in await operate.follow(operator, own)] == [own]


async def test_no_more_rows_are_looked_through_than_asked_for(
    writer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    own = await write(writer, "c-1")
    near = await write(writer, "c-1")
    await write(writer, "c-1")
    found = await operate.follow(operator, own, within_rows=1)
    assert [each.message_id for each in found] == [own, near]


async def test_in_a_schema_of_its_own(empty_database: str) -> None:
    settings = on(empty_database, database_schema="messages")
    await asyncio.to_thread(upgrade, settings)
    async with sql.connection(empty_database, server_settings={"search_path": "messages"}) as writer:
        message_id = await write(writer, "c-1")
    async with connect(settings) as operator:
        assert [each.message_id for each in await operate.follow(operator, message_id)] == [message_id]


async def test_a_database_that_keeps_no_commit_times() -> None:
    async with Postgres(binaries=wheel_binaries(), settings={"fsync": "off"}) as postgres:
        await migrate(postgres.url)
        async with sql.connection(postgres.url) as writer:
            message_id = await write(writer)
        async with connect(on(postgres.url)) as operator:
            found = await operate.trace(operator, message_id)
    assert found is not None
    assert found.committed_at is None
