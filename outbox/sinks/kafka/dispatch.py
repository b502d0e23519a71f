"""The way of one send through the cluster: find the leaders, hand over, understand the answers.

Owns what is tried again within a send and what a failure is called. The bookkeeping is `Sending`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from outbox.clock import since_boot
from outbox.errors import Permanent, Scope, Unavailable
from outbox.sinks.kafka.answers import answer
from outbox.sinks.kafka.cluster import NOBODY, Cluster
from outbox.sinks.kafka.link import BrokerError, Link, Produced, TopicPartition
from outbox.sinks.kafka.records import moment
from outbox.sinks.kafka.sending import MakeError, PartitionQueue, Sending

_LEADER_WAITS = (0.0, 0.1, 0.2, 0.4)
"""Seconds before each look for a partition's new leader; an election takes about as long."""
_CREATION_WAITS = (0.1, 0.2)
"""The same for a topic that the broker may be making on demand."""
_MISSING_SECONDS = 1.0
"""A topic that could not be used is not looked for again so soon."""
_LEADERLESS_SECONDS = 10.0
"""A partition that found no leader is looked at but not waited for again so soon."""
_BROKER_SHARE = 0.9
"""How much of our time a broker may wait for its replicas, so that its answer still finds us."""
_NO_ANSWER = Produced(-1, -1)
_TOO_LARGE = ("MESSAGE_TOO_LARGE", "RECORD_LIST_TOO_LARGE")


@dataclass(frozen=True, slots=True)
class Troubles:
    """What could not be used lately, so that it delays nobody again; outlives a send."""

    missing: dict[str, tuple[float, MakeError]] = field(default_factory=dict)
    """Topics: until when nobody looks for them, and why."""
    leaderless: dict[TopicPartition, float] = field(default_factory=dict)
    """Partitions: until when nobody waits for an election."""


class Dispatch:
    """Sends what is in `sending`, in tasks of a group, until every queue is empty or has failed."""

    def __init__(
        self,
        cluster: Cluster,
        sending: Sending,
        tasks: asyncio.TaskGroup,
        troubles: Troubles,
        deadline: float,
    ) -> None:
        self._cluster = cluster
        self._sending = sending
        self._tasks = tasks
        self._missing = troubles.missing
        self._leaderless = troubles.leaderless
        self._deadline = deadline

    def start(self) -> None:
        """Sends to the topics that are known, and looks for the others meanwhile."""
        queues: list[PartitionQueue] = []
        new: dict[str, Sequence[int]] = {}
        missed: dict[str, Sequence[int]] = {}
        for topic, rows in self._sending.by_topic().items():
            until, failure = self._missing.get(topic, (0.0, None))
            if topic in self._cluster.leaders:
                queues += self._enqueue(topic, rows)
            elif failure is None:
                new[topic] = rows
            elif time.monotonic() < until:
                self._sending.give_up(rows, failure)
            else:
                missed[topic] = rows
        self._hand_over(queues)
        for topics, waits in ((new, _CREATION_WAITS), (missed, ())):
            if topics:
                self._tasks.create_task(self._find(topics, waits))

    def _enqueue(self, topic: str, rows: Sequence[int]) -> list[PartitionQueue]:
        return self._sending.enqueue(topic, rows, self._cluster.leaders[topic])

    async def _find(self, topics: Mapping[str, Sequence[int]], waits: Sequence[float]) -> None:
        """Looks for these topics, again after each wait, and sends to those that are there."""
        try:
            codes = await self._cluster.look(topics)
        except BrokerError as error:
            for rows in topics.values():
                self._sending.give_up(rows, partial(Unavailable, str(error), scope="sink"))
            return
        found = [topic for topic in topics if topic not in codes]
        for topic in found:
            self._missing.pop(topic, None)
        self._hand_over([queue for topic in found for queue in self._enqueue(topic, topics[topic])])
        if waits and any(answer(code).blame == "leader" for code in codes.values()):
            await asyncio.sleep(waits[0])
            await self._find({topic: topics[topic] for topic in codes}, waits[1:])
            return
        for topic, code in codes.items():
            failure = _unusable(code)
            self._missing[topic] = (time.monotonic() + _MISSING_SECONDS, failure)
            self._sending.give_up(topics[topic], failure)

    def _hand_over(self, queues: Iterable[PartitionQueue]) -> None:
        """Gives what is queued to the partitions' leaders."""
        by_leader: dict[int, list[PartitionQueue]] = defaultdict(list)
        for queue in queues:
            by_leader[self._cluster.leader(queue.topic, queue.partition)].append(queue)
        self._seek(dict.fromkeys(by_leader.pop(NOBODY, []), "LEADER_NOT_AVAILABLE"))
        for node, theirs in by_leader.items():
            self._tasks.create_task(self._send_to(node, theirs))

    async def _send_to(self, node: int, queues: Sequence[PartitionQueue]) -> None:
        """Sends to one broker what it leads, one record batch per partition at a time."""
        while queues := [queue for queue in queues if self._sending.next_batch(queue)]:
            try:
                link = await self._cluster.link(node)
            except BrokerError as error:
                self._seek(dict.fromkeys(queues, str(error)))
                return
            if link.throttled:
                if not await self._quota_allows(link, queues):
                    return
                continue  # It may be another link by now.
            if self._seconds_left() <= 0:
                return  # The machine slept.
            try:
                answers = await self._exchange(link, queues)
            except BrokerError as error:
                await self._lost(queues, str(error))
                return
            except asyncio.CancelledError:
                self._cluster.leave_alone(node)
                raise
            moved = {queue: name for queue in queues if (name := self._understand(queue, answers))}
            self._seek(moved)
            queues = [queue for queue in queues if queue not in moved]

    async def _quota_allows(self, link: Link, queues: Iterable[PartitionQueue]) -> bool:
        """Waits until the broker reads from us again; False if that is too late for this send."""
        seconds = link.throttled_until - time.monotonic()
        if seconds > self._seconds_left():
            reason = f"over a quota of the broker, throttled for {seconds:.1f} s"
            for queue in queues:
                self._sending.failed(queue, partial(Unavailable, reason, scope="sink"))
            return False
        await asyncio.sleep(seconds)
        return True

    async def _exchange(self, link: Link, queues: Iterable[PartitionQueue]) -> dict[TopicPartition, Produced]:
        for queue in queues:
            queue.batches[0].under_way = True
        return await link.produce(
            {(queue.topic, queue.partition): queue.batches[0].data for queue in queues},
            seconds=self._seconds_left() * _BROKER_SHARE,
        )

    def _seconds_left(self) -> float:
        return self._deadline - since_boot()

    def _understand(self, queue: PartitionQueue, answers: Mapping[TopicPartition, Produced]) -> str | None:
        """Takes note of an answer; returns the error's name if another broker leads the partition."""
        code, offset = answers.get((queue.topic, queue.partition), _NO_ANSWER)
        meaning = answer(code)
        self._sending.answered = True
        batch = queue.batches[0]
        batch.under_way = False
        batch.uncertain |= meaning.appended
        match meaning.blame:
            case "none":
                self._sending.taken(queue, offset)
            case "leader":
                return meaning.name
            case "record":
                size = f": {len(batch.data)} bytes" if meaning.name in _TOO_LARGE else ""
                self._sending.refused(queue, partial(Permanent, meaning.name + size))
            case "name":
                self._sending.failed(queue, partial(Permanent, meaning.name))
            case "time":
                now = moment(datetime.fromtimestamp(self._sending.now / 1_000, UTC))[1]
                reason = f"{meaning.name}: here it is {now}"
                self._sending.mistimed(queue, partial(Unavailable, reason, scope="destination"))
            case "unknown":
                self._sending.unclear(queue, meaning.name)
            case scope:
                self._sending.failed(queue, partial(Unavailable, meaning.name, scope=scope))
        return None

    async def _lost(self, queues: Iterable[PartitionQueue], reason: str) -> None:
        """Fails what was under way on a connection that broke."""
        try:
            await self._cluster.look({queue.topic for queue in queues}, make=False)
        except BrokerError:
            scope: Scope = "sink"
        else:
            scope = "part"
        for queue in queues:
            self._sending.failed(queue, partial(Unavailable, reason, scope=scope))

    def _seek(self, moved: Mapping[PartitionQueue, str]) -> None:
        """Looks for the new leaders of partitions, or fails those that were looked for often enough."""
        now = time.monotonic()
        queues = []
        for queue, reason in moved.items():
            place = queue.topic, queue.partition
            patient = now >= self._leaderless.get(place, 0.0)
            if queue.searches < (len(_LEADER_WAITS) if patient else 1):
                queue.searches += 1
                queues.append(queue)
                continue
            if patient:
                self._leaderless[place] = now + _LEADERLESS_SECONDS
            self._sending.failed(queue, partial(Unavailable, reason, scope="part"))
        if queues:
            self._tasks.create_task(self._find_leaders(queues))

    async def _find_leaders(self, queues: Sequence[PartitionQueue]) -> None:
        await asyncio.sleep(_LEADER_WAITS[max(queue.searches for queue in queues) - 1])
        topics = {queue.topic for queue in queues}
        try:
            codes = await self._cluster.look(topics)
        except BrokerError as error:
            failures: dict[str, MakeError] = dict.fromkeys(
                topics, partial(Unavailable, str(error), scope="sink")
            )
        else:
            failures = {topic: _unusable(code) for topic, code in codes.items()}
        for queue in queues:
            if queue.topic in failures:
                self._sending.failed(queue, failures[queue.topic])
        self._hand_over([queue for queue in queues if queue.topic not in failures])


def _unusable(code: int) -> MakeError:
    meaning = answer(code)
    if meaning.blame == "name":
        return partial(Permanent, meaning.name)
    return partial(Unavailable, meaning.name, scope="destination")
