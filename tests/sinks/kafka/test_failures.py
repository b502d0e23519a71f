"""The Kafka sink with brokers that stall, die, move and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from time import monotonic

import pytest
import pytest_asyncio

from outbox.devstack import Kafka
from outbox.errors import SinkError, Unavailable, Unsent
from outbox.message import Result, Sent
from outbox.settings import KafkaSettings
from outbox.sinks.kafka import KafkaSink
from outbox.sinks.kafka.cluster import Cluster
from tests.support import servers
from tests.support.deliveries import arrived, delivery, ids
from tests.support.kafka import Topics
from tests.support.sinks import is_sent, started
from tests.support.waiting import BOUNDED, until

NOBODY_THERE = "127.0.0.1:1"
TIMEOUT = 2.0
_NODES = count(2)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def _stalling() -> AsyncIterator[Kafka]:
    properties = {"broker.session.timeout.ms": "60000", "auto.create.topics.enable": "true"}
    async with AsyncExitStack() as stack:
        yield await servers.start(stack, lambda: Kafka(properties=properties))


@pytest.fixture
def stalling(_stalling: Kafka) -> Iterator[Kafka]:
    """A broker that may be paused, and is not given up by its cluster then."""
    yield _stalling
    _stalling.resume()


@asynccontextmanager
async def sink_of(*brokers: Kafka, timeout: float = TIMEOUT) -> AsyncIterator[KafkaSink]:  # noqa: ASYNC109
    settings = KafkaSettings(bootstrap_servers=",".join(broker.url for broker in brokers))
    async with started(KafkaSink(settings, timeout=timeout)) as sink:
        yield sink
        began = monotonic()
        await sink.stop()
        assert monotonic() - began < BOUNDED


def only_unavailable(results: Sequence[Result], *, scope: str, uncertain: bool) -> bool:
    return all(
        isinstance(result, Unavailable) and (result.scope, result.uncertain) == (scope, uncertain)
        for result in results
    )


async def is_under_way(sink: KafkaSink) -> bool:
    assert sink._cluster is not None
    return any(link._connection._requests for link in sink._cluster._links.values())


async def test_start_tells_at_once_that_nobody_is_there() -> None:
    sink = KafkaSink(KafkaSettings(bootstrap_servers=NOBODY_THERE))
    began = monotonic()
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1: ConnectionRefusedError"):
            await sink.start()
    assert monotonic() - began < 3.0, "neither waited its three seconds out"
    await sink.stop()


async def test_start_finds_the_one_that_is_there(kafka: Topics) -> None:
    addresses = f"{NOBODY_THERE},{kafka.bootstrap},nowhere.invalid:9092"
    async with started(KafkaSink(KafkaSettings(bootstrap_servers=addresses))) as sink:
        assert await is_sent(sink, [delivery(await kafka.create())])


async def test_a_start_before_a_stalled_broker(stalling: Kafka) -> None:
    stalling.pause()
    sink = KafkaSink(KafkaSettings(bootstrap_servers=stalling.url))
    began = monotonic()
    with pytest.raises(TimeoutError):  # cancelled, it leaves nothing
        async with asyncio.timeout(0.3):
            await sink.start()
    with pytest.raises(Unavailable, match=r"no answer within 3 s"):
        await sink.start()
    assert monotonic() - began < BOUNDED
    stalling.resume()
    await sink.start()
    await sink.stop()


async def test_a_stalled_broker(stalling: Kafka) -> None:
    topics = Topics(stalling.url)
    topic = await topics.create(partitions=2)
    before, small = ([delivery(topic, f"key-{n % 5}") for n in range(10)] for _ in range(2))
    large = [delivery(topic, f"big-{n % 5}", payload=bytes(500_000)) for n in range(60)]
    async with sink_of(stalling) as sink:
        await until(partial(is_sent, sink, before))
        stalling.pause()
        began = monotonic()
        results, large_results = await asyncio.gather(sink.send(small), sink.send(large))
        assert monotonic() - began < BOUNDED
        assert only_unavailable(results, scope="sink", uncertain=True)
        # One record batch per partition was under way; the rest was never handed over.
        uncertain = [
            row
            for row, result in zip(large, large_results, strict=True)
            if isinstance(result, SinkError) and result.uncertain
        ]
        assert 0 < len(uncertain) <= 4

        # Nothing could be handed over to it, so this is certain.
        assert only_unavailable(await sink.send([delivery(topic)]), scope="sink", uncertain=False)

        stalling.resume()
        after = [delivery(topic, f"key-{n}") for n in range(10)]
        await until(partial(is_sent, sink, after))
    found = set(arrived(await topics.read(topic)))
    assert found >= {*ids(before), *ids(after)}
    assert found <= {*ids(before), *ids(small), *ids(uncertain), *ids(after)}


async def test_a_topic_that_the_broker_makes_on_demand(stalling: Kafka) -> None:
    async with sink_of(stalling, timeout=60.0) as sink:
        assert await is_sent(sink, [delivery("made.on.demand", "a"), delivery("made.on.demand", "b")])


async def test_a_topic_that_no_message_goes_to_is_not_made_again(stalling: Kafka) -> None:
    topics = Topics(stalling.url)
    gone, other = await topics.create(), await topics.create()
    async with sink_of(stalling, timeout=60.0) as sink:
        assert await is_sent(sink, [delivery(gone), delivery(other)])
        await topics.delete(gone)
        assert sink._cluster is not None
        await until(partial(is_forgotten, sink._cluster, gone))
    assert await topics.names() >= {other}
    assert gone not in await topics.names()


async def is_forgotten(cluster: Cluster, topic: str) -> bool:
    await cluster.look_again()
    return topic not in cluster.leaders


async def test_stop_is_bounded_before_a_stalled_broker(stalling: Kafka) -> None:
    topic = await Topics(stalling.url).create()
    rows = [delivery(topic, payload=bytes(900_000)) for _ in range(20)]
    async with sink_of(stalling, timeout=60.0) as sink:
        assert await is_sent(sink, [delivery(topic)])
        stalling.pause()
        sending = asyncio.create_task(sink.send(rows))
        await until(partial(is_under_way, sink))
        began = monotonic()
        await sink.stop()
        results = await sending
    assert monotonic() - began < BOUNDED
    # The first record batch was under way, the others were not.
    assert {(type(result), result.uncertain) for result in results if isinstance(result, SinkError)} == {
        (Unavailable, True),
        (Unavailable, False),
    }


async def test_a_send_that_is_cancelled_is_taken_back(stalling: Kafka) -> None:
    topics = Topics(stalling.url)
    topic = await topics.create()
    rows = [delivery(topic, "k", payload=bytes(1_000_000)) for _ in range(30)]
    async with sink_of(stalling, timeout=60.0) as sink:
        assert await is_sent(sink, [delivery(topic)])
        stalling.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await sink.send(rows)
        stalling.resume()
        assert await is_sent(sink, [delivery(topic)])
    assert len(await topics.read(topic)) <= 3


async def test_a_broker_that_dies_and_comes_back(own_kafka: Kafka) -> None:
    topic = await Topics(own_kafka.url).create(partitions=2)
    async with sink_of(own_kafka, timeout=60.0) as sink:
        assert await is_sent(sink, [delivery(topic, "a")])
        await own_kafka.kill()
        began = monotonic()
        results = await sink.send([delivery(topic, "a"), delivery(topic, "a"), delivery(topic, "b")])
        assert monotonic() - began < BOUNDED
        assert [type(result) for result in results] == [Unavailable, Unsent, Unavailable]
        assert only_unavailable([results[0], results[2]], scope="sink", uncertain=False)
        assert "ConnectionRefusedError" in str(results[0])
        await own_kafka.start()
        assert await is_sent(sink, [delivery(topic, "a")])


async def test_the_send_in_which_the_broker_dies(own_kafka: Kafka) -> None:
    topic = await Topics(own_kafka.url).create()
    rows = [delivery(topic, "k", payload=bytes(400_000)) for _ in range(10)]
    async with sink_of(own_kafka, timeout=60.0) as sink:
        assert await is_sent(sink, [delivery(topic, "k")])
        own_kafka.pause()
        sending = asyncio.create_task(sink.send(rows))
        await until(partial(is_under_way, sink))
        await own_kafka.kill()
        results = await sending
    assert only_unavailable(results[:2], scope="sink", uncertain=True)
    assert all(isinstance(result, Unsent) for result in results[2:])


# Several brokers


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def steady() -> AsyncIterator[Kafka]:
    """A broker that stays, whatever the second ones do that come and go."""
    async with AsyncExitStack() as stack:
        yield await servers.start(stack, lambda: Kafka(properties=servers.KAFKA_PROPERTIES))


@pytest.fixture
async def second(steady: Kafka) -> AsyncIterator[Kafka]:
    """Another one in its cluster, which may go away: each is a node that there was not before."""
    node = next(_NODES)
    async with AsyncExitStack() as stack:
        yield await servers.start(
            stack, lambda: Kafka(controller=steady, node=node, properties=servers.KAFKA_PROPERTIES)
        )


@pytest.fixture
async def pair(steady: Kafka, second: Kafka) -> AsyncIterator[KafkaSink]:
    """A sink of two brokers; the second may go away."""
    async with sink_of(steady, second) as sink:
        yield sink


async def test_a_leader_that_moves_is_followed_within_the_send(steady: Kafka, second: Kafka) -> None:
    topics = Topics(steady.url)
    topic = await topics.create(replicas=[[second.node, 1], [1, second.node]])
    rows = [delivery(topic, f"key-{n % 6}") for n in range(30)]
    async with sink_of(steady, second, timeout=60.0) as sink:
        assert {result.partition for result in await sink.send(rows) if isinstance(result, Sent)} == {0, 1}
        await second.stop()  # in good order: its partitions have another leader by then
        assert await is_sent(sink, rows)


async def test_a_leader_that_dies_in_a_burst(steady: Kafka, second: Kafka, pair: KafkaSink) -> None:
    """Sends like a pump, always from the first of each key that is not done, until all are."""
    topics = Topics(steady.url)
    topic = await topics.create(replicas=[[second.node, 1], [1, second.node]])
    rows = [delivery(topic, f"key-{n // 10 % 8}", payload=bytes(2_000)) for n in range(2_000)]
    todo, seen = rows, set()
    async with asyncio.timeout(60):
        while todo:
            results = await pair.send(todo[:400])
            seen |= {(type(result), getattr(result, "scope", None)) for result in results}
            left = [row for row, result in zip(todo, results, strict=False) if not isinstance(result, Sent)]
            todo = left + todo[400:]
            if len(todo) < 1_500 and second.running:
                await second.kill()
    assert seen == {(Sent, None), (Unsent, None), (Unavailable, "part")}
    found = arrived(await topics.read(topic))
    assert set(found) == set(ids(rows))
    firsts = list(dict.fromkeys(found))
    for key in {row.key for row in rows}:
        of_key = ids(row for row in rows if row.key == key)
        assert [message for message in firsts if message in set(of_key)] == of_key


async def test_one_of_two_brokers_stalls(steady: Kafka, second: Kafka, pair: KafkaSink) -> None:
    topic = await Topics(steady.url).create(replicas=[[second.node], [1]])
    rows = [delivery(topic, f"key-{n}") for n in range(20)]
    await until(partial(is_sent, pair, rows))
    second.pause()
    results = await pair.send(rows)
    assert {type(result) for result in results} == {Sent, Unavailable}
    assert {result.partition for result in results if isinstance(result, Sent)} == {1}
    stalled = [result for result in results if not isinstance(result, Sent)]
    assert only_unavailable(stalled, scope="part", uncertain=True)
    # Then it is left alone for a while, and delays nobody: another try would take a third of the time-out.
    took = []
    for _ in range(8):
        began = monotonic()
        results = await pair.send(rows)
        took.append(monotonic() - began)
        stalled = [result for result in results if not isinstance(result, Sent)]
        assert 0 < len(stalled) < len(rows)
        assert only_unavailable(stalled, scope="part", uncertain=False)
    assert min(took) < TIMEOUT / 4
    second.resume()


async def test_a_leader_that_stalls_is_replaced(steady: Kafka, second: Kafka, pair: KafkaSink) -> None:
    topic = await Topics(steady.url).create(replicas=[[second.node, 1]])
    await until(partial(is_sent, pair, [delivery(topic)]))
    second.pause()
    await until(partial(is_sent, pair, [delivery(topic)]))
    second.resume()


async def test_too_few_replicas(steady: Kafka, second: Kafka, pair: KafkaSink) -> None:
    topic = await Topics(steady.url).create(replicas=[[1, second.node]], min_insync_replicas=2)
    good = await Topics(steady.url).create(replicas=[[1]])
    await second.kill()
    waiting = await pair.send([delivery(topic, "k"), delivery(topic, "k")])
    assert only_unavailable(waiting, scope="part", uncertain=True)
    assert "REQUEST_TIMED_OUT" in str(waiting[0])

    async def is_known() -> bool:
        results = await pair.send([delivery(topic, "k"), delivery(topic, "k"), delivery(good)])
        assert isinstance(results[2], Sent)
        return "NOT_ENOUGH_REPLICAS" in str(results[0])

    await until(is_known)
    refused, behind, other = await pair.send([delivery(topic, "k"), delivery(topic, "k"), delivery(good)])
    assert only_unavailable([refused], scope="part", uncertain=False)
    assert isinstance(behind, Unsent)
    assert isinstance(other, Sent)
