"""A Kafka cluster: which broker leads which partition, and a link to each broker.

Built on aiokafka's connections and protocol, below its producer. The producer resends by itself what
may have arrived, tells the last error only, and while a broker is stalled it neither withdraws what
waits nor stops in a bounded time. Here a request is written once, and is either answered or taken back
with its connection. Nothing is retried and nothing classified here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple, Self

from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest

from outbox.sinks.network import said, withdraw

Node = int | str
"""A broker's id, or `host:port` where it is known by its address only."""

Place = tuple[str, int]
"""A topic and a partition of it."""

NOBODY = -1
"""The leader of a partition that has none."""

_ACKS_ALL = -1
_LOOK_SECONDS = 300.0  # the Java client's metadata.max.age.ms
_IDLE_MS = 180_000  # before balancers and firewalls drop an idle connection in silence
_CLOSE_SECONDS = 1.0


class BrokerError(Exception):
    """A broker cannot be reached or did not answer; the message says which and why, in one line."""


class Produced(NamedTuple):
    """A broker's answer about one record batch."""

    code: int
    offset: int
    """Of the batch's first record."""


class Link:
    """A connection to one broker."""

    def __init__(self, connection: AIOKafkaConnection) -> None:
        self.throttled_until = 0.0
        """The broker reads nothing from us before this time (monotonic): a quota is exceeded."""
        self._connection = connection
        self._transport: asyncio.WriteTransport = connection._writer.transport  # noqa: SLF001

    @classmethod
    async def open(cls, host: str, port: int, options: Mapping[str, Any]) -> Self:
        """Connect and log in. Raises BrokerError."""
        try:
            return cls(await create_conn(host, port, max_idle_ms=_IDLE_MS, **options))
        except (KafkaError, OSError) as error:
            raise BrokerError(f"{host}:{port}: {said(error)}") from error

    @property
    def connected(self) -> bool:
        """Whether it was still open when last heard of."""
        return bool(self._connection.connected())

    async def ask(self, request: Any) -> Any:
        """The broker's answer. Raises BrokerError."""
        try:
            return await self._connection.send(request)
        except (KafkaError, OSError) as error:
            raise BrokerError(f"{self._connection.host}:{self._connection.port}: {said(error)}") from error

    async def produce(
        self, batches: Mapping[Place, bytes | bytearray], seconds: float
    ) -> dict[Place, Produced]:
        """Send these record batches; the broker may wait so long for its replicas.

        Whenever this does not return an answer, what was not sent yet never will be.
        """
        topics: dict[str, list[tuple[int, bytes | bytearray]]] = defaultdict(list)
        for (topic, partition), data in batches.items():
            topics[topic].append((partition, data))
        request = ProduceRequest(
            transactional_id=None,
            required_acks=_ACKS_ALL,
            timeout=max(1, int(seconds * 1_000)),
            topics=list(topics.items()),
        )
        try:
            response = await self.ask(request)
        except BaseException:
            withdraw(self._transport)
            self._connection.close()
            raise
        self.throttled_until = time.monotonic() + response.throttle_time_ms / 1_000
        return {
            (topic, partition): Produced(code, offset)
            for topic, partitions in response.topics
            for partition, code, offset, *_ in partitions
        }

    async def close(self) -> None:
        """Close it in good order, or by force if that is not done at once."""
        closed = self._connection.close()
        await asyncio.wait([closed], timeout=_CLOSE_SECONDS)
        withdraw(self._transport)
        await asyncio.wait([closed], timeout=_CLOSE_SECONDS)


class Cluster:
    """The brokers of one cluster, and the leaders of the topics it was asked about."""

    def __init__(self, bootstrap_servers: str, patience: float, options: Mapping[str, Any]) -> None:
        self.leaders: dict[str, list[int]] = {}
        """The leading broker of each partition of each known topic, `NOBODY` where there is none."""
        self._patience = patience
        self._options = options
        self._bootstrap: dict[Node, tuple[str, int]] = {
            f"{host}:{port}": (host, port) for host, port, _ in collect_hosts(bootstrap_servers)
        }
        self._addresses = dict(self._bootstrap)
        self._links: dict[Node, Link] = {}
        self._locks: dict[Node, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._looked_at = time.monotonic()
        self._closed = False

    def leader(self, topic: str, partition: int) -> int:
        """The broker to send to, or `NOBODY`."""
        leaders = self.leaders.get(topic, [])
        return leaders[partition] if partition < len(leaders) else NOBODY

    async def link(self, node: Node) -> Link:
        """The link to this broker. Raises BrokerError."""
        async with self._locks[node]:
            link = self._links.get(node)
            if link is None or not link.connected:
                link = self._links[node] = await self._open(node)
            return link

    async def look(self, topics: Iterable[str]) -> dict[str, int]:
        """Learn the leaders of these topics; returns the error codes of those that have none.

        A broker that makes topics on demand is asked to. Raises BrokerError if no broker answers.
        """
        request = MetadataRequest(list(topics))
        failures = []
        for node in self._by_promise():
            try:
                async with asyncio.timeout(self._patience):
                    answer = await (await self.link(node)).ask(request)
            except TimeoutError:
                failures.append(f"broker {node}: no answer within {self._patience:g} s")
            except BrokerError as error:
                failures.append(str(error))
            else:
                return await self._learn(answer)
        raise BrokerError("; ".join(failures))

    @property
    def stale(self) -> bool:
        """Whether it is time to look again: a topic may have been given more partitions."""
        return time.monotonic() - self._looked_at > _LOOK_SECONDS

    async def look_again(self) -> None:
        """Learn anew what is known, if a broker answers."""
        self._looked_at = time.monotonic()
        with contextlib.suppress(BrokerError):
            await self.look(self.leaders)

    async def close(self) -> None:
        """Close all links, within a few seconds whatever the brokers do."""
        self._closed = True
        links, self._links = self._links, {}
        await asyncio.gather(*(link.close() for link in links.values()))

    async def _open(self, node: Node) -> Link:
        address = self._addresses.get(node)
        if address is None or self._closed:
            raise BrokerError(f"broker {node} is not there" if address is None else "stopped")
        link = await Link.open(*address, self._options)
        if self._closed:
            await link.close()
            raise BrokerError("stopped")
        return link

    def _by_promise(self) -> list[Node]:
        """All brokers, the most likely to answer first."""
        nodes = list(self._addresses)
        random.shuffle(nodes)
        return sorted(nodes, key=lambda node: (node in self._bootstrap, node not in self._links))

    async def _learn(self, answer: Any) -> dict[str, int]:
        self._addresses = {
            **self._bootstrap,
            **{node: (host, port) for node, host, port, *_ in answer.brokers},
        }
        errors = {}
        for code, topic, *_, partitions in answer.topics:
            if code == 0:
                self.leaders[topic] = [leader for _, _, leader, *_ in sorted(partitions, key=itemgetter(1))]
            else:
                self.leaders.pop(topic, None)
                errors[topic] = code
        for node in self._bootstrap.keys() & self._links.keys():
            await self._links.pop(node).close()
        return errors
