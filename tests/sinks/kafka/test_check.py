"""What a Kafka cluster's check says of topics, rights and limits; each fault is planted on a real broker."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka.admin import AclOperation

from outbox.devstack import Kafka
from outbox.settings import KafkaSettings, Settings
from outbox.sinks.checking import Use, check
from outbox.sinks.kafka import KafkaSink
from tests.support.kafka import Topics
from tests.support.secured_kafka import PASSWORD, SecuredKafka
from tests.support.sinks import started
from tests.support.waiting import until


async def found(bootstrap: str, *topics: str, use: Any = None, **settings: Any) -> list[str]:
    async with started(KafkaSink(KafkaSettings(bootstrap_servers=bootstrap, **settings))) as sink:
        told = await sink.check(Use(destinations=topics, **(use or {})))
    return [f"{each.severity}: {each.sentence} → {each.remedy}" for each in told]


async def test_a_topic_that_is_missing_is_told(kafka: Topics) -> None:
    there = await kafka.create()
    assert await found(kafka.bootstrap) == []
    assert await found(kafka.bootstrap, there, "nowhere", "no/topic") == [
        "error: Topic nowhere does not exist; deliveries to it wait. → kafka-topics.sh --create --topic "
        "nowhere",
        "error: Topic no/topic cannot be used: the broker says INVALID_TOPIC_EXCEPTION. → see the broker's "
        "log",
    ]
    assert await kafka.names() >= {there}
    assert not await kafka.names() & {"nowhere"}


async def test_limits_of_a_topic_that_are_below_ours_are_told(kafka: Topics) -> None:
    small = await kafka.create(max_message_bytes=500_000, retention_ms=3_600_000)
    narrow = await kafka.create(max_message_bytes=1_010_000)
    told = await found(kafka.bootstrap, small, narrow)
    assert sorted(told) == sorted(
        [
            f"error: Topic {small} takes 500000 bytes at the most, and messages of 1000000 may be written: "
            "those "
            f"above are parked. → kafka-configs.sh --alter --topic {small} --add-config "
            "max.message.bytes=1048588; "
            "or OUTBOX_KAFKA_MAX_BYTES=499800",
            f"warning: Topic {small} keeps records for 3600 s, and the outbox what it delivered for 604800 "
            "s: a "
            "consumer that is away for longer misses what we still have. → kafka-configs.sh --alter "
            f"--topic {small} "
            "--add-config retention.ms=604800000; or a shorter OUTBOX_RETENTION",
            f"warning: Topic {narrow} takes 1010000 bytes at the most, and record batches of 1048588 are "
            "made: the "
            f"larger ones are refused, and sent again in halves. → kafka-configs.sh --alter --topic {narrow} "
            "--add-config max.message.bytes=1048588; or OUTBOX_KAFKA_MAX_BATCH_BYTES=1010000",
        ]
    )
    assert await found(kafka.bootstrap, small, use={"max_bytes": 400_000, "retention_seconds": 60.0}) == [
        line.replace(narrow, small).replace("1010000", "500000")
        for line in told
        if line.startswith(f"warning: Topic {narrow}")
    ]
    assert await kafka.read(small) == []


@pytest.mark.slow
async def test_replicas_against_the_least_in_sync_are_told(own_kafka: Kafka, second_broker: Kafka) -> None:
    topics = Topics(own_kafka.url)
    lonely = await topics.create(replicas=[[1]], min_insync_replicas=2)
    exact = await topics.create(replicas=[[1]], min_insync_replicas=1)
    thin = await topics.create(replicas=[[1, 2]], min_insync_replicas=2)
    led = await topics.create(replicas=[[2]], min_insync_replicas=1)
    assert await found(own_kafka.url, lonely, exact, thin) == [
        f"error: Topic {lonely} has min.insync.replicas = 2, and replicas: 1. It takes nothing. → "
        f"kafka-configs.sh --alter --topic {lonely} --add-config min.insync.replicas=1; or more replicas",
        f"warning: Topic {exact} has min.insync.replicas = 1, and replicas: 1. It takes nothing while one "
        "broker is away. → give it one replica more: kafka-reassign-partitions.sh",
    ]
    await second_broker.kill()

    async def is_told() -> bool:
        return await found(own_kafka.url, thin, led) == [
            f"error: Fewer than 2 replicas are in sync of these partitions of topic {thin}: 0. They take "
            "nothing. → bring the brokers of the other replicas back",
            f"error: Nobody leads these partitions of topic {led}: 0. Their keys wait. → "
            "bring their brokers back",
        ]

    await until(is_told)


async def test_rights_that_are_missing_are_told_and_nothing_is_written(secured: SecuredKafka) -> None:
    topics = Topics(secured.url)
    await topics.create_if_missing("allowed.check")
    await topics.create_if_missing("forbidden.check")
    settings = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": "relay",
        "sasl_password": PASSWORD,
        "ssl_ca_file": secured.certificates.ca,
    }
    told = await found(secured.sasl, "allowed.check", "forbidden.check", **settings)
    assert told == [
        "error: Topic forbidden.check refuses this user: it has not the right Describe. → kafka-acls.sh "
        "--add "
        "--allow-principal User:relay --operation Describe --topic forbidden.check",
        "unknown: This user may not see the settings of topics: sizes, replicas and retention were not "
        "looked at. → "
        "kafka-acls.sh --add --allow-principal User:relay --operation DescribeConfigs --topic '*'",
    ]
    await secured.allow("forbidden.check", AclOperation.DESCRIBE)

    async def may_be_seen() -> bool:
        told[:] = await found(secured.sasl, "forbidden.check", **settings)
        return "Describe" not in told[0].partition("→")[0]

    await until(may_be_seen)
    assert told[1:] == [
        "error: Topic forbidden.check refuses this user: it has not the right Write. → kafka-acls.sh --add "
        "--allow-principal User:relay --operation Write --topic forbidden.check",
    ]
    assert await topics.read("allowed.check") == []
    assert PASSWORD not in "".join(told)


async def test_a_cluster_that_does_not_answer_is_a_finding() -> None:
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": "localhost:1"}})
    (told,) = await check("kafka", settings, ["orders"])
    assert told.severity == "error"
    assert told.sentence.startswith("It cannot be reached: localhost:1: ")
