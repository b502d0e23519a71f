"""From Kafka into the database: each event once, nothing past a failure, nothing lost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.devstack import Kafka
from outbox.devstack.server import free_port
from outbox.huleedu.consume import (
    Consumer,
    ConsumerMetrics,
    ConsumerSettings,
    Effect,
    Handler,
    Incoming,
    Receiver,
    holds,
    offsets,
    watch,
)
from outbox.huleedu.consume import consumer as life
from outbox.huleedu.database import engine_of
from outbox.huleedu.errors import Unacceptable
from outbox.huleedu.events.fields import Id, Model
from tests.support import servers
from tests.support.huleedu import event
from tests.support.kafka import Topics
from tests.support.network import Network, network
from tests.support.postgres import Cluster
from tests.support.producing import committed, produce, produce_with_odd_header
from tests.support.waiting import BOUNDED, until


class Settings(ConsumerSettings):
    prefix = "TEST_"

    service_name: str = "test"
    kafka_session_timeout_seconds: float = 60.0
    retry_longest_seconds: float = 0.2


class Thing(Model):
    """What the events of these tests are about."""

    name: Id


class Rig:
    """A consumer that writes down the names of things, until it is told to fail at some of them."""

    def __init__(self, url: str, kafka: Topics, group: str, topics: list[str]) -> None:
        self.settings = Settings(database_url=url, kafka_bootstrap_servers=kafka.bootstrap, kafka_group=group)
        self.failing: set[str] = set()
        self.tried: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.registry = CollectorRegistry()
        metrics = ConsumerMetrics("test", self.registry)
        self.engine = engine_of(self.settings)
        handlers = [Handler(topic, Thing, self.apply) for topic in topics]
        receiver = Receiver(self.engine, group, handlers, metrics)
        self.consumer = Consumer(self.settings, self.engine, receiver, metrics)

    async def apply(self, connection: AsyncConnection, events: Sequence[Incoming[Thing]]) -> list[Effect]:
        names = [each.data.name for each in events]
        self.tried.append(names)
        for name in names:
            await connection.execute(text("INSERT INTO applied VALUES (:name)"), {"name": name})
        await self.gate.wait()
        if self.failing.intersection(names):
            raise RuntimeError("not yet")
        if "unacceptable" in names:
            raise Unacceptable("nobody wants it")
        if "too large" in names:
            await connection.execute(text("SELECT 2147483648::int"))
        return [Effect("applied") for _ in events]

    async def applied(self) -> list[str]:
        return await self.column("SELECT name FROM applied ORDER BY ctid")

    async def reasons(self) -> list[str]:
        return await self.column("SELECT reason FROM huleedu_parked_input ORDER BY partition_offset")

    async def column(self, statement: str) -> list[str]:
        async with self.engine.connect() as connection:
            return list((await connection.execute(text(statement))).scalars())

    def gauge(self, name: str, topic: str) -> float:
        value = self.registry.get_sample_value(name, {"topic": topic})
        assert value is not None
        return value

    def count(self, topic: str, outcome: str) -> float:
        labels = {"topic": topic, "outcome": outcome}
        return self.registry.get_sample_value("test_events_total", labels) or 0.0


Consuming = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
async def consuming(huleedu_database: str, kafka: Topics) -> Consuming:
    """`async with consuming(topic, …) as rig:` runs a consumer within the block."""

    @asynccontextmanager
    async def run(*topics: str, group: str | None = None, on: Topics = kafka) -> AsyncIterator[Rig]:
        rig = Rig(huleedu_database, on, group or f"group-{uuid4()}", list(topics))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(rig.consumer.run())
            try:
                yield rig
            finally:
                rig.gate.set()
                rig.consumer.stop()
        await rig.engine.dispose()

    return run


@pytest.fixture(autouse=True)
async def _table(huleedu_database: str) -> None:
    engine = engine_of(Settings(database_url=huleedu_database, kafka_bootstrap_servers="x", kafka_group="x"))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE applied (name text)"))
    await engine.dispose()


def thing(topic: str, name: str, **changed: Any) -> dict[str, Any]:
    return event(topic, {"name": name}, **changed)


async def test_each_event_is_applied_once_however_often_it_comes(consuming: Consuming, kafka: Topics) -> None:
    topic = await kafka.create()
    things = [thing(topic, f"thing {number}") for number in range(5)]
    await produce(kafka.bootstrap, topic, *things, *things, thing(topic, "last"))
    async with consuming(topic) as rig:
        await until(lambda: _is(rig.applied, [f"thing {number}" for number in range(5)] + ["last"]))
        group = rig.settings.kafka_group
    assert await committed(kafka.bootstrap, group, topic) == [11]
    assert rig.count(topic, "repeated") == 5
    async with consuming(topic, group=group) as rig:
        await produce(kafka.bootstrap, topic, thing(topic, "next"))
        await until(lambda: _holds(lambda: rig.tried == [["next"]]))


MALFORMED: Mapping[str, Any] = {
    "there is no value": None,
    "Invalid JSON": b'{"half": ',
    "Input should be an object": b"[]",
    "data.name: Field required": lambda topic: event(topic, {}),
    "data.name: has a NUL character": lambda topic: thing(topic, "a\0b"),
    "event_id: Field required": lambda topic: {k: v for k, v in thing(topic, "a").items() if k != "event_id"},
    "event_timestamp: is too close to the ends of time": lambda topic: thing(
        topic, "a", event_timestamp="0001-01-01T00:00:00+10:00"
    ),
    "nobody wants it": lambda topic: thing(topic, "unacceptable"),
    "the database refuses it: NumericValueOutOfRangeError": lambda topic: thing(topic, "too large"),
    "Invalid JSON: lone": b'{"event_id": "\\ud800"}',
    "Invalid JSON: recursion": b"[" * 100_000,
}


async def test_a_header_whose_name_is_no_utf8_parks_its_record_alone(
    consuming: Consuming, kafka: Topics
) -> None:
    topic = await kafka.create(partitions=3)
    for start in (0, 30):
        for partition in range(3):
            some = [thing(topic, f"{partition}-{number}") for number in range(start, start + 30)]
            await produce(kafka.bootstrap, topic, *some, partition=partition)
            if partition:
                odd = [thing(topic, "odd"), thing(topic, "odd")]
                await produce_with_odd_header(kafka.bootstrap, topic, *odd, partition=partition)
    async with consuming(topic) as rig:
        # A backlog, in which they are fetched with others.
        await until(lambda: _holds(lambda: rig.count(topic, "applied") == 180))
        await until(lambda: _holds(lambda: rig.count(topic, "parked") == 8))
        # What comes while it consumes.
        await produce_with_odd_header(kafka.bootstrap, topic, thing(topic, "odd"), partition=0)
        await produce(kafka.bootstrap, topic, thing(topic, "later"), partition=0)
        await until(lambda: _holds(lambda: rig.count(topic, "applied") == 181))
        await until(lambda: _holds(lambda: rig.count(topic, "parked") == 9))
        everything = [f"{partition}-{number}" for partition in range(3) for number in range(60)]
        assert sorted(await rig.applied()) == sorted([*everything, "later"])
        group = rig.settings.kafka_group
    found = await rig.column(
        "SELECT partition || '/' || partition_offset FROM huleedu_parked_input"
        " WHERE reason LIKE 'a header%no UTF-8%' ORDER BY partition, partition_offset"
    )
    in_backlog = [f"{partition}/{offset}" for partition in (1, 2) for offset in (30, 31, 62, 63)]
    assert found == ["0/60", *in_backlog]
    assert await committed(kafka.bootstrap, group, topic, 3) == [62, 64, 64]


async def test_what_can_never_be_applied_is_parked_with_the_reason(
    consuming: Consuming, kafka: Topics
) -> None:
    topic = await kafka.create()
    values = [make(topic) if callable(make) else make for make in MALFORMED.values()]
    await produce(kafka.bootstrap, topic, *values, thing(topic, "good"), key="k\0")
    async with consuming(topic) as rig:
        await until(lambda: _is(rig.applied, ["good"]))
    for reason, expected in zip(await rig.reasons(), MALFORMED, strict=True):
        assert reason.startswith(expected.partition(": lone")[0].partition(": recursion")[0])
    assert rig.count(topic, "parked") == len(MALFORMED)
    assert await committed(kafka.bootstrap, rig.settings.kafka_group, topic) == [len(MALFORMED) + 1]
    kept = await rig.column(
        "SELECT convert_from(value, 'UTF8') FROM huleedu_parked_input WHERE value IS NOT NULL"
    )
    assert kept[0] == '{"half": '


async def test_nothing_is_committed_past_what_a_retry_may_heal_and_other_partitions_go_on(
    consuming: Consuming, kafka: Topics
) -> None:
    topic = await kafka.create(partitions=2)
    async with consuming(topic) as rig:
        rig.failing.add("b")
        await produce(kafka.bootstrap, topic, *(thing(topic, name) for name in "abc"), partition=0)
        await until(lambda: _holds(lambda: rig.tried.count(["b"]) >= 3))
        await produce(kafka.bootstrap, topic, *(thing(topic, name) for name in "xyz"), partition=1)
        await until(lambda: _is(rig.applied, ["a", "x", "y", "z"]))
        group = rig.settings.kafka_group
        await until(lambda: _is(lambda: committed(kafka.bootstrap, group, topic, 2), [1, 3]))
        assert rig.consumer.trouble() == [f"{topic}-0: RuntimeError: not yet"]
        assert rig.registry.get_sample_value("test_partitions_held") == 1
        rig.failing.clear()
        await until(lambda: _is(rig.applied, ["a", "x", "y", "z", "b", "c"]))
        await until(lambda: _holds(lambda: rig.consumer.trouble() == []))
    assert await committed(kafka.bootstrap, group, topic, 2) == [3, 3]
    assert await rig.reasons() == []


async def test_a_database_that_is_away_is_waited_for(
    consuming: Consuming, kafka: Topics, huleedu_database: str, postgres: Cluster
) -> None:
    topic, name = await kafka.create(), huleedu_database.rpartition("/")[2]
    await postgres.execute(f"ALTER DATABASE {name} RENAME TO {name}_away")
    await produce(kafka.bootstrap, topic, thing(topic, "a"))
    async with consuming(topic) as rig:
        await until(lambda: _holds(lambda: "InvalidCatalogName" in str(rig.consumer.trouble())))
        await postgres.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")
        await until(lambda: _is(rig.applied, ["a"]))


async def test_a_topic_that_does_not_exist_yet_keeps_nobody_waiting(
    consuming: Consuming, kafka: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_METADATA_SECONDS", 0.5)
    topic, later = await kafka.create(), f"test.{uuid4()}"
    await produce(kafka.bootstrap, topic, thing(topic, "a"))
    async with consuming(later, topic) as rig:
        await until(lambda: _is(rig.applied, ["a"]))
        await kafka.create(later)
        await produce(kafka.bootstrap, later, thing(later, "b"))
        await until(lambda: _is(rig.applied, ["a", "b"]))


async def test_it_stops_after_the_set_under_way_and_hands_over_at_once(
    consuming: Consuming, kafka: Topics
) -> None:
    topic = await kafka.create()
    async with consuming(topic) as rig:
        rig.gate.clear()
        await produce(kafka.bootstrap, topic, thing(topic, "a"))
        await until(lambda: _holds(lambda: rig.tried == [["a"]]))
        await produce(kafka.bootstrap, topic, thing(topic, "b"), thing(topic, "c"))
    assert rig.tried == [["a"]]
    group = rig.settings.kafka_group
    assert await committed(kafka.bootstrap, group, topic) == [1]
    async with consuming(topic, group=group) as second:
        # Sooner than the first one's session would have ended.
        await until(lambda: _is(second.applied, ["a", "b", "c"]), deadline=30.0)


async def test_a_broker_that_dies_and_comes_back_changes_nothing(
    consuming: Consuming, own_kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offsets, "COMMIT_SECONDS", 0.5)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(watch, "ANSWER_SECONDS", 1.0)
    topics = Topics(own_kafka.url)
    topic = await topics.create()
    await produce(own_kafka.url, topic, thing(topic, "a"))
    async with consuming(topic, on=topics) as rig:
        rig.gate.clear()
        await until(lambda: _holds(lambda: rig.tried == [["a"]]))
        await own_kafka.kill()
        rig.gate.set()
        await until(lambda: _is(rig.applied, ["a"]))
        await until(lambda: _holds(lambda: rig.consumer.trouble()[:1] != []))
        assert rig.consumer.trouble()[0].startswith("kafka: ")
        assert math.isnan(rig.gauge("test_lag_records", topic))
        await own_kafka.start()
        await produce(own_kafka.url, topic, thing(topic, "b"))
        await until(lambda: _is(rig.applied, ["a", "b"]))
        group = rig.settings.kafka_group
        await until(lambda: _is(lambda: committed(own_kafka.url, group, topic), [2]))
        await until(lambda: _holds(lambda: rig.consumer.trouble() == []))


async def test_a_corrupt_record_batch_parks_its_records_alone(consuming: Consuming, own_kafka: Kafka) -> None:
    topics = Topics(own_kafka.url)
    topic = await topics.create(partitions=2)
    for name in ("before", "on the disk", "after"):
        await produce(own_kafka.url, topic, thing(topic, name), partition=0)
    (segment,) = own_kafka.home.glob(f"logs/{topic}-0/*.log")
    with segment.open("r+b") as file:
        place = file.read().index(b"on the disk")
        file.seek(place)
        file.write(b"of the dusk")
    await produce(own_kafka.url, topic, thing(topic, "beside"), partition=1)
    async with consuming(topic, on=topics) as rig:
        await until(lambda: _holds(lambda: rig.count(topic, "applied") == 3))
        assert sorted(await rig.applied()) == ["after", "before", "beside"]
        assert [reason[:26] for reason in await rig.reasons()] == ["its record batch is corrup"]
        group = rig.settings.kafka_group
    assert await committed(own_kafka.url, group, topic, 2) == [3, 1]


@pytest.fixture
async def far_kafka() -> AsyncIterator[tuple[Kafka, Network]]:
    """A broker of the test's own, and a way to it, by which it has an address of its own."""
    inner = free_port()
    async with network(inner) as way, AsyncExitStack() as stack:

        def make() -> Kafka:
            kafka = Kafka()
            near, far = f"PLAINTEXT://127.0.0.1:{kafka.port}", f"FAR://127.0.0.1:{inner}"
            kafka.properties = {
                **servers.KAFKA_PROPERTIES,
                "listeners": f"{near},{far},CONTROLLER://127.0.0.1:{kafka.controller_port}",
                "advertised.listeners": f"{near},FAR://127.0.0.1:{way.port}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,FAR:PLAINTEXT,CONTROLLER:PLAINTEXT",
            }
            return kafka

        yield await servers.start(stack, make), way


@pytest.mark.slow
async def test_a_kafka_that_a_network_swallows_is_noticed_and_nothing_is_lost_or_applied_twice(
    consuming: Consuming, far_kafka: tuple[Kafka, Network]
) -> None:
    kafka, way = far_kafka
    near, far = Topics(kafka.url), Topics(f"127.0.0.1:{way.port}")
    topic = await near.create(partitions=2)
    names = [f"{number}" for number in range(50)]
    async with consuming(topic, on=far) as rig:
        await produce(kafka.url, topic, thing(topic, "first"))
        await until(lambda: _is(rig.applied, ["first"]))
        # While some are being applied, so that where they end cannot be committed any more.
        rig.gate.clear()
        await produce(kafka.url, topic, thing(topic, "second"), partition=0)
        await until(lambda: _holds(lambda: ["second"] in rig.tried))
        way.swallow()
        rig.gate.set()
        assert rig.consumer.trouble() == []
        for number, name in enumerate(names):
            await produce(kafka.url, topic, thing(topic, name), partition=number % 2)
        stated = watch.LOOK_SECONDS + watch.ANSWER_SECONDS
        await until(lambda: _holds(lambda: rig.consumer.trouble() != []), deadline=stated + 10.0)
        assert rig.consumer.trouble()[0].startswith("kafka: no answer about")
        assert math.isnan(rig.gauge("test_lag_records", topic))
        assert await rig.applied() == ["first", "second"]
        way.heal()
        everything = sorted(["first", "second", *names])
        await until(lambda: _sorted_is(rig.applied, everything), deadline=90.0)
        await until(lambda: _holds(lambda: rig.consumer.trouble() == []), deadline=30.0)
        assert rig.count(topic, "applied") == len(everything)
        assert rig.count(topic, "parked") == 0
        group = rig.settings.kafka_group
    assert sum(await committed(kafka.url, group, topic, 2)) == len(everything)


async def test_a_backlog_is_applied_in_sets_and_its_lag_is_told(
    consuming: Consuming, kafka: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.1)
    topic = await kafka.create()
    await produce(kafka.bootstrap, topic, *(thing(topic, f"{number}") for number in range(500)))
    async with consuming(topic) as rig:
        rig.gate.clear()
        await until(lambda: _holds(lambda: rig.tried != []))
        await until(lambda: _holds(lambda: rig.gauge("test_lag_records", topic) == 500))
        assert rig.gauge("test_partitions_assigned", topic) == 1
        rig.gate.set()
        await until(lambda: _holds(lambda: rig.count(topic, "applied") == 500))
        await until(lambda: _holds(lambda: rig.gauge("test_lag_records", topic) == 0))
        assert len(rig.tried[0]) > 1
        assert max(map(len, rig.tried)) <= 200
        group = rig.settings.kafka_group
    assert await committed(kafka.bootstrap, group, topic) == [500]


async def test_a_lasting_error_that_is_no_events_fault_is_told_and_parks_nobody(
    consuming: Consuming, kafka: Topics, huleedu_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "_LASTING_SECONDS", 0.3)
    topic = await kafka.create()
    connection = await asyncpg.connect(huleedu_database)
    await connection.execute("ALTER TABLE applied RENAME TO away")
    await produce(kafka.bootstrap, topic, thing(topic, "a"))
    with structlog.testing.capture_logs() as lines:
        async with consuming(topic) as rig:
            await until(lambda: _holds(lambda: any(each["event"] == "consumer.stuck" for each in lines)))
            assert "UndefinedTableError" in rig.consumer.trouble()[0]
            await connection.execute("ALTER TABLE away RENAME TO applied")
            await until(lambda: _is(rig.applied, ["a"]))
            assert await rig.reasons() == []
    stuck = next(each for each in lines if each["event"] == "consumer.stuck")
    assert (stuck["log_level"], stuck["topic"]) == ("error", topic)
    await connection.close()


async def test_what_the_inbox_no_longer_needs_is_forgotten(
    consuming: Consuming, kafka: Topics, huleedu_database: str
) -> None:
    connection = await asyncpg.connect(huleedu_database)
    await connection.execute(
        "INSERT INTO outbox_inbox SELECT consumer, gen_random_uuid(), now() - interval '1 day' * n"
        " FROM unnest(ARRAY['forgetful', 'another']) consumer, unnest(ARRAY[1, 30, 60]) n"
    )

    async def left() -> bool:
        counts = await connection.fetch("SELECT consumer, count(*) FROM outbox_inbox GROUP BY consumer")
        return dict(counts) == {"forgetful": 1, "another": 3}

    async with consuming(await kafka.create(), group="forgetful"):
        await until(left)
    await connection.close()


async def test_without_kafka_it_says_so_and_can_stop(huleedu_database: str) -> None:
    rig = Rig(huleedu_database, Topics(f"127.0.0.1:{free_port()}"), "group", ["topic"])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(rig.consumer.run())
        await until(lambda: _holds(lambda: rig.consumer.trouble()[0].startswith("kafka: Kafka")))
        rig.consumer.stop()
        async with asyncio.timeout(BOUNDED):
            await running
    await rig.engine.dispose()


async def _is(ask: Callable[[], Any], expected: Any) -> bool:
    return bool(await ask() == expected)


async def _sorted_is(ask: Callable[[], Any], expected: Any) -> bool:
    return bool(sorted(await ask()) == expected)


async def _holds(condition: Callable[[], bool]) -> bool:
    return condition()
