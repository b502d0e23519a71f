"""To a real broker: whatever it refuses and whoever leads, no key's messages overtake each other."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from outbox.devstack import Kafka
from outbox.observe import watch
from outbox.relay import Relay
from tests.relay.traffic import QUICK, assert_all_in_order, emptied, heard, retry, settings_of, state, write
from tests.support.kafka import Topics
from tests.support.waiting import until

SMALL, LARGE = b"x", b"x" * 5_000


@pytest.fixture
def to_kafka(database: str, kafka: Topics) -> dict[str, str]:
    """The settings of a quick relay to Kafka."""
    return {
        **QUICK,
        "OUTBOX_DATABASE_URL": database,
        "OUTBOX_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "OUTBOX_SEND_TIMEOUT_SECONDS": "1",
    }


async def write_large_first(connection: asyncpg.Connection, topic: str) -> list[int]:
    """Three rows of one key that one fetch brings, of which the first is large."""
    async with connection.transaction():
        first = await write(connection, ["a"], sink="kafka", destination=topic, payload=LARGE)
        return first + await write(connection, ["a"] * 2, sink="kafka", destination=topic, payload=SMALL)


async def parked(connection: asyncpg.Connection, id_: int) -> None:
    async def is_parked() -> bool:
        return bool((await state(connection, id_))["state"] == "parked")

    await until(is_parked)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "by the broker": ({"max_message_bytes": 1_000}, {}),
    "as too large for a record batch": ({}, {"OUTBOX_KAFKA_MAX_BATCH_BYTES": "2000"}),
}


@pytest.mark.parametrize("refused", REFUSED)
async def test_what_follows_a_refused_row_waits_for_it_under_hold(
    to_kafka: dict[str, str], connection: asyncpg.Connection, kafka: Topics, refused: str
) -> None:
    limits, settings = REFUSED[refused]
    topic = await kafka.create(**limits)
    ids = await write_large_first(connection, topic)
    async with Relay(settings_of({**to_kafka, **settings, "OUTBOX_ON_PARK": "hold"})):
        await parked(connection, ids[0])
        # What the relay does from then on, it does with the key held.
        (other,) = await write(connection, ["b"], sink="kafka", destination=topic)
        await emptied(connection, but=3)
        assert await heard(connection, kafka, topic) == [other]
    await kafka.configure(topic, max_message_bytes=1_000_000)
    await retry(to_kafka, ids[0])
    async with Relay(settings_of({**to_kafka, "OUTBOX_ON_PARK": "hold"})):
        await emptied(connection)
    assert await heard(connection, kafka, topic) == [other, *ids]


@pytest.mark.parametrize("refused", REFUSED)
async def test_what_follows_a_refused_row_goes_once_that_is_parked_under_continue(
    to_kafka: dict[str, str], connection: asyncpg.Connection, kafka: Topics, refused: str
) -> None:
    limits, settings = REFUSED[refused]
    topic = await kafka.create(**limits)
    first, second, third = await write_large_first(connection, topic)
    async with Relay(settings_of({**to_kafka, **settings})):
        await emptied(connection, but=1)
    assert await heard(connection, kafka, topic) == [second, third]
    row = await state(connection, first)
    assert row["state"] == "parked"
    sent_at = await connection.fetchval("SELECT min(settled_at) FROM outbox_receipts")
    assert row["parked_at"] < sent_at


async def test_a_leader_goes_in_the_middle_of_a_burst(
    to_kafka: dict[str, str], connection: asyncpg.Connection, own_kafka: Kafka, second_broker: Kafka
) -> None:
    topics = Topics(own_kafka.url)
    moved = await topics.create(replicas=[[2, 1], [1, 2]])
    stranded = await topics.create(replicas=[[2]])
    keys = [f"key-{number}" for number in range(20) for _ in range(10)]
    to_kafka |= {"OUTBOX_KAFKA_BOOTSTRAP_SERVERS": own_kafka.url, "OUTBOX_BATCH_SIZE": "20"}
    with watch() as events:
        async with Relay(settings_of(to_kafka)):
            for _ in range(5):
                for topic in (moved, stranded):
                    await write(connection, keys, sink="kafka", destination=topic)
            await events.wait_for("pump.settled", count=10)
            await second_broker.kill()
            for topic in (moved, stranded):
                await write(connection, keys, sink="kafka", destination=topic)
            await until(lambda: only_waits_for_its_leader(connection))
            await second_broker.start()
            await emptied(connection)
    records = await topics.read(moved) + await topics.read(stranded)
    told = [record.headers["message_id"].decode() for record in records]
    await assert_all_in_order(connection, "kafka", told)


async def only_waits_for_its_leader(connection: asyncpg.Connection) -> bool:
    """Whether all that is left are keys whose partition nobody leads, and none was counted an attempt."""
    rows = await connection.fetch("SELECT state, attempts FROM outbox_state WHERE pending")
    assert {row["attempts"] for row in rows} <= {0}
    return bool(rows) and {row["state"] for row in rows} <= {"retrying", "held"}
