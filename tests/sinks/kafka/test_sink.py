"""The Kafka sink with a real broker that is well, and deliveries that are not all."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic, time
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.record.util import calc_crc32c
from confluent_kafka import Producer

from outbox.errors import Permanent, SettingsError, Transient, Unavailable, Unsent
from outbox.message import Sent
from outbox.settings import KafkaSettings
from outbox.sinks.kafka import KafkaSink
from outbox.sinks.kafka.records import Record, RecordBatch, record_of
from tests.support.deliveries import arrived, delivery, ids
from tests.support.kafka import Topics
from tests.support.sinks import is_sent, started
from tests.support.waiting import until


async def test_a_consumer_sees_exact_bytes_keys_headers_times_and_places(
    kafka: Topics, sink: KafkaSink
) -> None:
    topic = await kafka.create(partitions=5)
    rows = [
        delivery(topic, f"key-{number % 9}", payload=bytes([0, 255, number]), headers={"x": "ü"})
        for number in range(60)
    ]
    began = int(time() * 1_000)
    results = await sink.send(rows)
    found = {(record.partition, record.offset): record for record in await kafka.read(topic)}
    assert len(found) == 60
    for row, result in zip(rows, results, strict=True):
        assert isinstance(result, Sent)
        assert result.partition is not None
        assert result.offset is not None
        record = found[result.partition, result.offset]
        _, key, value, headers = record_of(row, None)
        assert (record.key, record.value) == (key, value)
        assert began <= record.timestamp_ms <= time() * 1_000
        assert record.headers == dict(headers)


async def test_partitions_are_the_java_clients(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create(partitions=7)
    keys = [f"batch-{number}" for number in range(40)] + [str(uuid4()) for _ in range(40)] + ["", "ü"]
    results = await sink.send([delivery(topic, key) for key in keys])
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2"})
    for key in keys:
        producer.produce(topic, key=key.encode(), value=b"librdkafka")
    assert await asyncio.to_thread(producer.flush, 30) == 0
    theirs = {
        record.key: record.partition for record in await kafka.read(topic) if record.value == b"librdkafka"
    }
    ours = {
        key.encode(): result.partition
        for key, result in zip(keys, results, strict=True)
        if isinstance(result, Sent)
    }
    assert ours == theirs


async def test_a_tombstone_has_a_key_and_no_value(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create(cleanup_policy="compact")
    await sink.send([delivery(topic, "k", payload=None), delivery(topic, "k", payload=b"")])
    assert [(record.key, record.value) for record in await kafka.read(topic)] == [(b"k", None), (b"k", b"")]


async def test_keyless_deliveries_take_turns_over_the_partitions(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create(partitions=3)
    results = [await sink.send([delivery(topic), delivery(topic)]) for _ in range(6)]
    partitions = [{result.partition for result in each if isinstance(result, Sent)} for each in results]
    assert all(len(each) == 1 for each in partitions)
    assert set.union(*partitions) == {0, 1, 2}
    assert {record.key for record in await kafka.read(topic)} == {None}


async def test_several_record_batches_of_a_partition_keep_the_order(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create(partitions=2)
    rows = [delivery(topic, f"key-{number % 5}", payload=bytes(50_000)) for number in range(120)]
    results = await sink.send(rows)
    assert all(isinstance(result, Sent) for result in results)
    found = await kafka.read(topic)
    assert len(found) == 120
    for key in range(5):
        ids = [record.headers["message_id"].decode() for record in found if record.key == b"key-%d" % key]
        assert ids == [str(row.message_id) for row in rows if row.key == f"key-{key}"]


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed(kafka: Topics, compression: Any) -> None:
    topic = await kafka.create(max_message_bytes=5_000)
    rows = [delivery(topic, "k", payload=b"essay " * 3_000) for _ in range(10)]
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, compression=compression)
    async with started(KafkaSink(settings)) as sink:
        assert await is_sent(sink, rows)
    assert [record.value for record in await kafka.read(topic)] == [row.payload for row in rows]


async def test_sends_at_once(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create(partitions=3)
    batches = [[delivery(topic, f"{pump}-{n % 3}") for n in range(200)] for pump in range(8)]
    for results in await asyncio.gather(*(sink.send(rows) for rows in batches)):
        assert all(isinstance(result, Sent) for result in results)
    assert len(await kafka.read(topic)) == 1_600


# Deliveries at fault


async def test_the_broker_refuses_one_and_only_that_one_is_parked(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create(max_message_bytes=3_000)
    rows = [delivery(topic, f"key-{number % 4}") for number in range(40)]
    rows[13] = rows[13]._replace(payload=bytes(4_000))
    results = await sink.send(rows)
    behind = [number for number in range(14, 40) if number % 4 == 1]
    good = [number for number in range(40) if number != 13 and number not in behind]
    assert isinstance(results[13], Permanent)
    assert str(results[13]).startswith("MESSAGE_TOO_LARGE: 4")
    assert not results[13].uncertain
    assert all(isinstance(results[number], Unsent) for number in behind)
    assert [results[number] for number in good] == [Sent(0, offset) for offset in range(len(good))]
    assert arrived(await kafka.read(topic)) == ids([rows[number] for number in good])


async def test_the_order_survives_a_refusal(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create(max_message_bytes=3_000)
    first, second, third = rows = [delivery(topic, "k"), delivery(topic, "k"), delivery(topic, "k")]
    rows[0] = first._replace(payload=bytes(4_000))
    assert [type(result) for result in await sink.send(rows)] == [Permanent, Unsent, Unsent]
    assert await kafka.read(topic) == []
    await kafka.configure(topic, max_message_bytes=10_000)
    await until(partial(is_sent, sink, rows))
    assert arrived(await kafka.read(topic)) == ids([first, second, third])


async def test_too_large_for_the_producer(kafka: Topics) -> None:
    topic = await kafka.create()
    rows = [
        delivery(topic, "a"),
        delivery(topic, "a", payload=bytes(2_000)),
        delivery(topic, "a"),
        delivery(topic, "b"),
    ]
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, max_batch_bytes=2_000)
    async with started(KafkaSink(settings)) as sink:
        results = await sink.send(rows)
    assert [type(result) for result in results] == [Sent, Permanent, Unsent, Sent]
    assert arrived(await kafka.read(topic)) == ids([rows[0], rows[3]])


async def test_a_record_without_a_key_in_a_compacted_topic(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create(cleanup_policy="compact")
    results = await sink.send([delivery(topic, "k"), delivery(topic), delivery(topic, "k")])
    assert [type(result) for result in results] == [Sent, Permanent, Sent]
    assert str(results[1]) == "INVALID_RECORD"


# Answers that tell nothing


class Garbling(RecordBatch):
    """A record batch that the broker cannot unpack, if there is poison in it: an unknown error, it says."""

    poisoned = False

    def append(self, row: int, record: Record) -> bool:
        taken = super().append(row, record)
        self.poisoned |= taken and record[2] == b"poison"
        return taken

    @property
    def data(self) -> bytearray:
        found = bytearray(super().data)
        if self.poisoned:
            found[61:71] = b"\xff" * 10  # the beginning of what is compressed
            struct.pack_into(">I", found, 17, calc_crc32c(bytes(found[21:])))
        return found


@pytest.fixture
async def garbling(kafka: Topics, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KafkaSink]:
    monkeypatch.setattr("outbox.sinks.kafka.sending.RecordBatch", Garbling)
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, compression="gzip")
    async with started(KafkaSink(settings)) as sink:
        yield sink


async def test_an_answer_that_is_always_uncertain_charges_one_record(
    kafka: Topics, garbling: KafkaSink
) -> None:
    topic = await kafka.create()
    rows = [delivery(topic, f"key-{number}") for number in range(20)]
    rows[7] = rows[7]._replace(payload=b"poison")
    results = await garbling.send(rows)
    charged = results.pop(7)
    assert isinstance(charged, Transient)
    assert (str(charged), charged.uncertain) == ("UNKNOWN_SERVER_ERROR", True)
    assert all(isinstance(result, Sent) for result in results)
    assert arrived(await kafka.read(topic)) == ids(rows[:7] + rows[8:])


async def test_a_partition_that_answers_nothing_else_is_down(kafka: Topics, garbling: KafkaSink) -> None:
    topic = await kafka.create()
    for result in await garbling.send([delivery(topic, f"k-{n}", payload=b"poison") for n in range(100)]):
        assert isinstance(result, Unavailable)
        assert (result.scope, result.part, result.uncertain) == ("part", "0", True)


# Time


HOUR = 3_600_000
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def test_a_databases_clock_that_is_wrong_parks_nothing(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create(message_timestamp_before_max_ms=HOUR, message_timestamp_after_max_ms=HOUR)
    ahead = datetime.now(UTC) + timedelta(hours=2)
    rows = [delivery(topic, "a", created_at=ahead), delivery(topic, "a", created_at=LONG_AGO)]
    rows.append(delivery(topic, "b", headers={"occurred_at": "2999-01-01T00:00:00Z"}))
    assert await is_sent(sink, rows)
    assert all(abs(record.timestamp_ms - time() * 1_000) < HOUR for record in await kafka.read(topic))


async def test_a_clock_of_ours_that_is_wrong_is_the_destinations_trouble(kafka: Topics) -> None:
    strict = await kafka.create(message_timestamp_after_max_ms=HOUR)
    good = await kafka.create(message_timestamp_after_max_ms=HOUR * 1_000)
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
    async with started(KafkaSink(settings, clock=lambda: time() + 2 * 3_600)) as sink:
        result, behind, other = await sink.send(
            [delivery(strict, "a"), delivery(strict, "a"), delivery(good)]
        )
    assert isinstance(result, Unavailable)
    assert str(result).startswith("INVALID_TIMESTAMP: here it is 20")
    assert (result.scope, result.uncertain) == ("destination", False)
    assert isinstance(behind, Unsent)
    assert isinstance(other, Sent)


async def test_the_time_of_the_event_on_demand_and_that_of_the_send_where_the_topic_refuses_it(
    kafka: Topics,
) -> None:
    free, strict = await kafka.create(), await kafka.create(message_timestamp_before_max_ms=HOUR)
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, timestamp="occurred")
    async with started(KafkaSink(settings)) as sink:
        rows = [
            delivery(topic, "a", headers={"occurred_at": "2020-01-01T00:00:00Z"}) for topic in (free, strict)
        ]
        assert await is_sent(sink, rows)
    assert [record.timestamp_ms for record in await kafka.read(free)] == [int(LONG_AGO.timestamp() * 1_000)]
    (record,) = await kafka.read(strict)
    assert abs(record.timestamp_ms - time() * 1_000) < HOUR
    assert record.headers["occurred_at"] == b"2020-01-01T00:00:00Z"


# Destinations at fault


async def test_a_missing_topic_delays_nobody(kafka: Topics, sink: KafkaSink) -> None:
    good = await kafka.create()
    missing = f"missing.{uuid4()}"
    rows = [delivery(missing, "a"), delivery(good, "a"), delivery(missing), delivery(good)]
    for _ in range(3):
        began = monotonic()
        results = await sink.send(rows)
        assert monotonic() - began < 10.0, "it did not wait the time of a send out"
        for result in (results[0], results[2]):
            assert isinstance(result, Unavailable)
            assert (str(result), result.scope) == ("UNKNOWN_TOPIC_OR_PARTITION", "destination")
            assert not result.uncertain
        assert isinstance(results[1], Sent)
        assert isinstance(results[3], Sent)


async def test_a_topic_is_found_once_it_is_there(kafka: Topics, sink: KafkaSink) -> None:
    topic = f"later.{uuid4()}"
    assert isinstance((await sink.send([delivery(topic)]))[0], Unavailable)
    await kafka.create(topic)
    await until(partial(is_sent, sink, [delivery(topic)]))


async def test_a_topic_that_was_deleted(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create()
    assert await is_sent(sink, [delivery(topic)])
    await kafka.delete(topic)
    rows = [delivery(topic)]

    async def is_missed() -> bool:
        return not await is_sent(sink, rows)

    await until(is_missed)
    (result,) = await sink.send(rows)
    assert isinstance(result, Unavailable)
    assert (str(result), result.scope) == ("UNKNOWN_TOPIC_OR_PARTITION", "destination")


async def test_a_name_that_no_topic_can_have(kafka: Topics, sink: KafkaSink) -> None:
    good = await kafka.create()
    result, other = await sink.send([delivery("not a topic!"), delivery(good)])
    assert isinstance(result, Permanent)
    assert str(result) == "INVALID_TOPIC_EXCEPTION"
    assert isinstance(other, Sent)


# Settings


@pytest.mark.parametrize("servers", [None, " ", "kafka:port", ":9092"])
def test_without_an_address(servers: str | None) -> None:
    with pytest.raises(SettingsError, match=r"OUTBOX_KAFKA_BOOTSTRAP_SERVERS=.*must be host:port"):
        KafkaSink(KafkaSettings(bootstrap_servers=servers))


async def test_start_and_stop_again(kafka: Topics, sink: KafkaSink) -> None:
    topic = await kafka.create()
    await sink.start()
    await sink.stop()
    await sink.stop()
    with pytest.raises(Unavailable, match="not started"):
        await sink.send([delivery(topic)])
    await sink.start()
    assert await is_sent(sink, [delivery(topic)])
    assert await sink.send([]) == []
