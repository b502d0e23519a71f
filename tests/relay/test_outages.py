"""Each server goes away and comes back: others go on meanwhile, nothing is lost, order stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from outbox.devstack import Kafka, Postgres, Valkey
from outbox.observe import watch
from outbox.relay import Relay
from outbox.testing import Fault, Gate
from tests.relay.traffic import (
    QUICK,
    SINK,
    arrived,
    assert_all_in_order,
    emptied,
    inversions,
    settings_of,
    write,
)
from tests.support import sql
from tests.support.kafka import Topics
from tests.support.postgres import migrate
from tests.support.relay_process import RelayProcess
from tests.support.waiting import until

LEASE_SECONDS = float(QUICK["OUTBOX_LEASE_SECONDS"])
SEND_TIMEOUT_SECONDS = float(QUICK["OUTBOX_SEND_TIMEOUT_SECONDS"])

StartRelay = Callable[..., Awaitable[RelayProcess]]


async def queued(connection: asyncpg.Connection, sink: str) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await connection.fetch(
        "SELECT * FROM outbox_queue WHERE sink = $1 ORDER BY id", sink
    )
    return found


async def settled(connection: asyncpg.Connection, sink: str) -> None:
    """Return once nothing of this sink is left."""

    async def none_left() -> bool:
        return not await queued(connection, sink)

    await until(none_left)


@pytest.fixture
async def both(database: str, own_kafka: Kafka, own_redis: Valkey, relay_process: StartRelay) -> RelayProcess:
    """A relay to a Kafka and a Redis that are not there yet."""
    await own_redis.kill()
    await own_kafka.kill()
    return await relay_process(
        {
            **QUICK,
            "OUTBOX_DATABASE_URL": database,
            "OUTBOX_KAFKA_BOOTSTRAP_SERVERS": own_kafka.url,
            "OUTBOX_REDIS_URL": own_redis.url,
            "OUTBOX_REDIS_STREAM": "true",
            "OUTBOX_REDIS_STREAM_MAX_LENGTH": "10000",
        }
    )


async def test_kafka_and_redis_go_and_come_back_one_without_the_other(
    both: RelayProcess, connection: asyncpg.Connection, own_kafka: Kafka, own_redis: Valkey
) -> None:
    topics = Topics(own_kafka.url)
    keys = [f"key-{number}" for number in range(5)]

    async def say() -> None:
        for _ in range(4):
            await write(connection, [key for key in keys for _ in range(3)], sink="kafka", destination="t")
            await write(connection, [key for key in keys for _ in range(3)], sink="redis", destination="c")

    # Neither is there when the relay starts.
    await both.event("relay.waiting", what="kafka")
    await both.event("relay.waiting", what="redis")
    await say()
    await own_redis.start()
    await settled(connection, "redis")
    waiting = await queued(connection, "kafka")
    assert len(waiting) == 60
    await own_kafka.start()
    await topics.create("t", partitions=3)
    await settled(connection, "kafka")

    for server, down, up in ((own_kafka, "kafka", "redis"), (own_redis, "redis", "kafka")):
        await server.kill()
        await say()
        await settled(connection, up)
        await both.event("breaker.opened", sink=down, destination=None)
        await until(lambda: have_waited(connection, LEASE_SECONDS + SEND_TIMEOUT_SECONDS))
        await say()
        await settled(connection, up)
        away = await queued(connection, down)
        assert len(away) == 120
        assert {row["attempts"] for row in away} == {0}
        await server.start()
        await settled(connection, down)

    both.terminate()
    assert await both.exited() == 0
    told = [record.headers["message_id"].decode() for record in await topics.read("t")]
    await assert_all_in_order(connection, "kafka", told)
    async with Redis.from_url(own_redis.url) as redis:
        log: Any = await redis.xrange("c:log")
        told = [entry[b"message_id"].decode() for _, entry in log]
    await assert_all_in_order(connection, "redis", told)


async def have_waited(connection: asyncpg.Connection, seconds: float) -> bool:
    """Whether the oldest delivery has been due for so long."""
    longest: float = await connection.fetchval(
        "SELECT extract(epoch FROM max(clock_timestamp() - first_due_at))::float FROM outbox_queue"
    )
    return longest > seconds


async def test_a_relay_waits_for_postgres_and_for_its_migration(
    own_postgres: Postgres, gate: Gate, relay_process: StartRelay
) -> None:
    await own_postgres.kill()
    relay = await relay_process({**QUICK, **gate.environment(SINK), "OUTBOX_DATABASE_URL": own_postgres.url})
    assert "ConnectionRefused" in (await relay.event("relay.waiting", what="postgres"))["reason"]
    await own_postgres.start()
    assert "outbox migrate" in (await relay.event("relay.waiting", what="schema"))["reason"]
    await migrate(own_postgres.url)
    await relay.event("relay.ready")
    async with sql.connection(own_postgres.url) as connection:
        ids = await write(connection, ["a"] * 3)
        await emptied(connection)
    assert gate.arrived == ids


async def test_postgres_restarts_in_the_middle_of_a_burst(
    own_postgres: Postgres, own_database: str, gate: Gate, relay_process: StartRelay
) -> None:
    relay = await relay_process(
        {
            **QUICK,
            **gate.environment(SINK),
            "OUTBOX_DATABASE_URL": own_database,
            "OUTBOX_BATCH_SIZE": "20",
        }
    )
    async with sql.connection(own_database) as connection:
        ids = await write(connection, [f"key-{number}" for number in range(20) for _ in range(50)] * 4)
    await arrived(gate, 200)
    await own_postgres.kill()
    await relay.event("relay.lost_database")
    await own_postgres.start()
    async with sql.connection(own_database) as connection:
        await emptied(connection)
        assert await connection.fetchval("SELECT count(*) FROM outbox_receipts") == len(ids)
    assert sorted(set(gate.arrived)) == ids
    assert inversions(gate.attempts) == []
    # What was sent and could not be settled was told later, not sent again.
    assert sorted(gate.arrived) == ids

    await own_postgres.kill()
    await relay.event("relay.lost_database", count=2)
    relay.terminate()
    assert await relay.exited() == 0


async def test_a_relay_that_alone_is_cut_off_leaves_its_lanes_to_the_other(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, tmp_path: Path
) -> None:
    cut_off, works = gate, Gate(tmp_path / "other")
    others = {**environment, **works.environment(SINK)}
    with watch() as events:
        async with Relay(settings_of(environment)) as first:
            await until_owned(first, 64)
            async with Relay(settings_of(others)) as second:
                await until_owned(second, 32)
                cut_off.set(Fault(kind="unavailable"))
                ids = await write(connection, [f"key-{number}" for number in range(200)])
                await emptied(connection)
                assert sorted(works.arrived) == ids
                assert cut_off.arrived == []
                # It comes back now and then, to see whether it still cannot.
                await until_owned(second, 64)
                cut_off.set()
                await until_owned(first, 32)
                later = await write(connection, [f"key-{number}" for number in range(200)])
                await emptied(connection)
    assert events.matching("sink.left")
    assert sorted(works.arrived + cut_off.arrived) == ids + later
    assert cut_off.arrived


async def until_owned(relay: Relay, count: int) -> None:
    """Return once it owns so many lanes."""

    async def owns() -> bool:
        (sink,) = relay.health().sinks
        return len(sink.lanes) == count

    await until(owns)


async def test_a_relay_that_is_cut_off_with_nobody_beside_keeps_its_lanes(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    async with Relay(settings_of(environment)) as relay:
        await until_owned(relay, 64)
        gate.set(Fault(kind="unavailable"))
        ids = await write(connection, ["a"] * 3)
        await until(lambda: have_waited(connection, 2 * LEASE_SECONDS))
        (sink,) = relay.health().sinks
        assert len(sink.lanes) == 64
        gate.set()
        await emptied(connection)
    assert gate.arrived == ids
