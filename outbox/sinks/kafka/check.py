"""What of a cluster's topics, rights and limits would keep deliveries from arriving; it writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from outbox.finding import Finding
from outbox.sinks.checking import Use
from outbox.sinks.kafka.answers import answer
from outbox.sinks.kafka.cluster import NOBODY, Cluster
from outbox.sinks.kafka.link import BrokerError

_BROKER, _TOPIC = 4, 2  # kinds of resources
_UNKNOWN_TOPIC, _REFUSED = 3, 29
_OVERHEAD = 200
"""What a record batch of one record adds to its bytes, about."""
_WANTED = ["min.insync.replicas", "max.message.bytes", "retention.ms", "cleanup.policy"]
_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What this sink's settings ask of a topic."""

    max_batch_bytes: int
    user: str | None
    """Whom the broker knows it as, where that is told."""


@dataclass(frozen=True, slots=True)
class _Topic:
    name: str
    partitions: Sequence[tuple[int, int, Sequence[int], Sequence[int]]]
    """Number, leader, replicas, and those in sync."""
    config: Mapping[str, str]
    """Empty where it may not be seen."""


async def check(cluster: Cluster, use: Use, limits: Limits) -> list[Finding]:
    """Examines the topics to which deliveries go."""
    if not use.destinations:
        return []
    metadata = await cluster.ask(MetadataRequest(list(use.destinations), allow_auto_topic_creation=False))
    brokers = [broker for broker, *_ in metadata.brokers]
    there = {topic: parts for code, topic, *_, parts in metadata.topics if code == 0 and parts}
    found = [
        finding
        for code, topic, *_ in metadata.topics
        if topic not in there
        for finding in await _absent(cluster, brokers, topic, code, limits)
    ]
    configs = await _configs(cluster, list(there))
    if there and not configs:
        found.append(_hidden(limits))
    for name, parts in there.items():
        topic = _Topic(name, [_partition(part) for part in parts], configs.get(name, {}))
        found += [*_of_replicas(topic, len(brokers)), *_of_limits(topic, use, limits)]
    return [*found, *await _refused(cluster, there, limits)]


def _partition(part: Any) -> tuple[int, int, Sequence[int], Sequence[int]]:
    _, number, leader, replicas, in_sync, *_ = part
    return number, leader, replicas, in_sync


async def _absent(
    cluster: Cluster, brokers: Sequence[int], topic: str, code: int, limits: Limits
) -> list[Finding]:
    if code == _REFUSED:
        return [_no_right(topic, "Describe", limits)]
    if code != _UNKNOWN_TOPIC:
        name = answer(code).name
        return [
            Finding("error", f"Topic {topic} cannot be used: the broker says {name}.", "see the broker's log")
        ]
    if await _makes_topics(cluster, brokers):
        return []
    create = f"kafka-topics.sh --create --topic {topic}"
    return [Finding("error", f"Topic {topic} does not exist; deliveries to it wait.", create)]


async def _makes_topics(cluster: Cluster, brokers: Sequence[int]) -> bool:
    """Returns True if a broker says that it makes topics on demand."""
    try:
        link = await cluster.link(brokers[0])
        asked = DescribeConfigsRequest([(_BROKER, str(brokers[0]), ["auto.create.topics.enable"])])
        ((code, _, _, _, entries),) = (await link.ask(asked)).resources
    except (BrokerError, IndexError):
        return False
    return code == 0 and any(value == "true" for _, value, *_ in entries)


async def _configs(cluster: Cluster, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns the settings of topics, of those that may be seen."""
    if not topics:
        return {}
    response = await cluster.ask(DescribeConfigsRequest([(_TOPIC, topic, _WANTED) for topic in topics]))
    return {
        topic: {name: value for name, value, *_ in entries}
        for code, _, _, topic, entries in response.resources
        if code == 0
    }


def _hidden(limits: Limits) -> Finding:
    return Finding(
        "unknown",
        "This user may not see the settings of topics: sizes, replicas and retention were not looked at.",
        f"{_acl(limits, 'DescribeConfigs')} --topic '*'",
    )


def _acl(limits: Limits, operation: str) -> str:
    return f"kafka-acls.sh --add --allow-principal User:{limits.user or '…'} --operation {operation}"


def _no_right(topic: str, operation: str, limits: Limits) -> Finding:
    sentence = f"Topic {topic} refuses this user: it has not the right {operation}."
    return Finding("error", sentence, f"{_acl(limits, operation)} --topic {topic}")


def _of_replicas(topic: _Topic, brokers: int) -> Iterator[Finding]:
    lowest = int(topic.config.get("min.insync.replicas", 1))
    leaderless = [number for number, leader, *_ in topic.partitions if leader == NOBODY]
    thin = [
        number
        for number, leader, _, in_sync in topic.partitions
        if leader != NOBODY and len(in_sync) < lowest
    ]
    copies = min(len(replicas) for _, _, replicas, _ in topic.partitions)
    if leaderless:
        yield Finding(
            "error",
            f"Nobody leads these partitions of topic {topic.name}: {_parts(leaderless)}. Their keys wait.",
            "bring their brokers back",
        )
    if copies < lowest:
        yield Finding(
            "error",
            f"Topic {topic.name} has min.insync.replicas = {lowest}, and replicas: {copies}. It takes "
            "nothing.",
            f"kafka-configs.sh --alter --topic {topic.name} --add-config min.insync.replicas={copies}; "
            "or more replicas",
        )
    elif thin:
        yield Finding(
            "error",
            f"Fewer than {lowest} replicas are in sync of these partitions of topic {topic.name}: "
            f"{_parts(thin)}. They take nothing.",
            "bring the brokers of the other replicas back",
        )
    elif copies == lowest and brokers > copies:
        yield Finding(
            "warning",
            f"Topic {topic.name} has min.insync.replicas = {lowest}, and replicas: {copies}. It takes "
            "nothing "
            "while one broker is away.",
            "give it one replica more: kafka-reassign-partitions.sh",
        )


def _parts(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")


def _of_limits(topic: _Topic, use: Use, limits: Limits) -> Iterator[Finding]:
    if largest := int(topic.config.get("max.message.bytes", 0)):
        change = f"kafka-configs.sh --alter --topic {topic.name} --add-config max.message.bytes="
        if largest < use.max_bytes + _OVERHEAD:
            yield Finding(
                "error",
                f"Topic {topic.name} takes {largest} bytes at the most, and messages of {use.max_bytes} may "
                "be written: those above are parked.",
                f"{change}{limits.max_batch_bytes}; or OUTBOX_KAFKA_MAX_BYTES={max(1, largest - _OVERHEAD)}",
            )
        elif largest < limits.max_batch_bytes:
            yield Finding(
                "warning",
                f"Topic {topic.name} takes {largest} bytes at the most, and record batches of "
                f"{limits.max_batch_bytes} are made: the larger ones are refused, and sent again in halves.",
                f"{change}{limits.max_batch_bytes}; or OUTBOX_KAFKA_MAX_BATCH_BYTES={largest}",
            )
    kept = int(topic.config.get("retention.ms", -1)) / 1_000
    if "delete" in topic.config.get("cleanup.policy", "") and 0 <= kept < use.retention_seconds:
        yield Finding(
            "warning",
            f"Topic {topic.name} keeps records for {kept:.0f} s, and the outbox what it delivered for "
            f"{use.retention_seconds:.0f} s: a consumer that is away for longer misses what we still have.",
            f"kafka-configs.sh --alter --topic {topic.name} "
            f"--add-config retention.ms={use.retention_seconds * 1000:.0f}; or a shorter OUTBOX_RETENTION",
        )


async def _refused(cluster: Cluster, there: Mapping[str, Any], limits: Limits) -> list[Finding]:
    """Tells of the topics that this user may not write to.

    A broker asks for the right before it looks at what is written; and of nothing, nothing is written.
    """
    leaders: dict[int, dict[tuple[str, int], bytes]] = {}
    for topic, parts in there.items():
        led = [(number, leader) for number, leader, *_ in map(_partition, parts) if leader != NOBODY]
        for number, leader in led[:1]:
            leaders.setdefault(leader, {})[topic, number] = b""
    found = []
    for leader, nothing in leaders.items():
        try:
            link = await cluster.link(leader)
            answers = await link.produce(nothing, _SECONDS)
        except BrokerError as error:
            remedy = "is its advertised address right, and open from here?"
            found.append(
                Finding("error", f"Broker {leader}, which leads partitions, is not reached: {error}.", remedy)
            )
            continue
        found += [
            _no_right(topic, "Write", limits)
            for (topic, _), produced in answers.items()
            if produced.code == _REFUSED
        ]
    return found
