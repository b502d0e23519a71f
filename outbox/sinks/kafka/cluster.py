"""A Kafka cluster: which broker leads which partition, and a link to each broker.

It stands below aiokafka's producer, which resends by itself what
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
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal, TypeVar
from weakref import WeakSet

from aiokafka.protocol.metadata import MetadataRequest

from outbox.sinks.kafka.link import BrokerError, Link

Address = tuple[str, int]
"""A host and a port."""

Purpose = Literal["look", "send"]

NOBODY = -1
"""The leader of a partition that has none."""

_LOOK_SECONDS = 300.0  # the Java client's metadata.max.age.ms
_SILENT_SECONDS = 10.0  # a cluster takes about as long to give a broker up

_LEADER_NOT_AVAILABLE = 5

T = TypeVar("T")


class Cluster:
    """The brokers of one cluster, and the leaders of the topics it was asked about.

    Questions go over a link of their own: a broker answers the requests of a connection in turn, and
    a record batch may wait for its replicas.
    """

    def __init__(self, bootstrap: Sequence[Address], patience: float, options: Mapping[str, Any]) -> None:
        self.leaders: dict[str, list[int]] = {}
        """The leading broker of each partition of each known topic, `NOBODY` where there is none."""
        self._patience = patience
        self._options = options
        self._bootstrap = bootstrap
        self._brokers: dict[int, Address] = {}
        self._links: dict[tuple[Address, Purpose], Link] = {}
        self._retired: WeakSet[Link] = WeakSet()
        self._locks: dict[tuple[Address, Purpose], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._silent: dict[Address, float] = {}
        """Brokers that did not answer, each until when it is left alone."""
        self._looked_at = time.monotonic()
        self._closed = False

    def leader(self, topic: str, partition: int) -> int:
        """Returns the broker that leads a partition, or `NOBODY`."""
        leaders = self.leaders.get(topic, [])
        return leaders[partition] if partition < len(leaders) else NOBODY

    async def link(self, broker: int) -> Link:
        """Returns the link to a broker. Raises BrokerError, at once if the broker was silent a moment ago."""
        address = self._brokers.get(broker)
        if address is None:
            raise BrokerError(f"broker {broker} is not there")
        if time.monotonic() < self._silent.get(address, 0.0):
            raise BrokerError(f"{address[0]}:{address[1]}: did not answer a moment ago")
        return await self._patiently(address, self._link(address, "send"))

    def leave_alone(self, broker: int) -> None:
        """Does not try a broker for a while, because it did not answer, unless it answers a question."""
        if broker in self._brokers:
            self._silent[self._brokers[broker]] = time.monotonic() + _SILENT_SECONDS

    async def look(self, topics: Iterable[str], *, make: bool = True) -> dict[str, int]:
        """Learns the leaders of these topics; returns the error codes of those that have none.

        A broker that makes topics on demand is asked to, or not to: `make` is for those to which a
        message goes. Raises BrokerError if no broker answers.
        """
        return self._learn(await self.ask(MetadataRequest(list(topics), allow_auto_topic_creation=make)))

    async def ask(self, request: Any) -> Any:
        """Returns the answer of the first broker that gives one. Raises BrokerError if none does."""
        failures = []
        for address in self._by_promise():
            try:
                answer = await self._patiently(address, self._ask(address, request))
            except BrokerError as error:
                failures.append(str(error))
            else:
                self._silent.pop(address, None)
                return answer
        raise BrokerError("; ".join(failures))

    @property
    def stale(self) -> bool:
        """True if it is time to look again: a topic may have been given more partitions."""
        return time.monotonic() - self._looked_at > _LOOK_SECONDS

    async def look_again(self) -> None:
        """Learns the leaders of all known topics anew, if a broker answers."""
        self._looked_at = time.monotonic()
        with contextlib.suppress(BrokerError):
            await self.look(self.leaders, make=False)

    async def close(self) -> None:
        """Closes all links, within a few seconds whatever the brokers do."""
        self._closed = True
        links, self._links = self._links, {}
        await asyncio.gather(*(link.close() for link in (*links.values(), *self._retired)))

    async def _ask(self, address: Address, request: Any) -> Any:
        link = await self._link(address, "look")
        return await link.ask(request)

    async def _patiently(self, address: Address, answer: Awaitable[T]) -> T:
        """Waits for a broker's answer, but not so long that no other broker could be tried."""
        try:
            async with asyncio.timeout(self._patience):
                return await answer
        except TimeoutError:
            self._silent[address] = time.monotonic() + _SILENT_SECONDS
            raise BrokerError(f"{address[0]}:{address[1]}: no answer within {self._patience:.3g} s") from None

    async def _link(self, address: Address, purpose: Purpose) -> Link:
        async with self._locks[address, purpose]:
            link = self._links.get((address, purpose))
            if link is not None and link.connected:
                if not link.old:
                    return link
                self._retired.add(link)
                link.retire()
            if not self._closed:
                link = await Link.open(*address, self._options)
                if not self._closed:
                    self._links[address, purpose] = link
                    return link
                await link.close()
            raise BrokerError("stopped")

    def _by_promise(self) -> list[Address]:
        """Returns all addresses: those that answered before, other brokers, the given ones, silent ones."""
        asked = [
            where for (where, purpose), link in self._links.items() if purpose == "look" and link.connected
        ]
        others = random.sample(list(self._brokers.values()), len(self._brokers))
        addresses = dict.fromkeys([*asked, *others, *self._bootstrap])
        return sorted(addresses, key=lambda address: self._silent.get(address, 0.0))

    def _learn(self, answer: Any) -> dict[str, int]:
        self._brokers = {broker: (host, port) for broker, host, port, *_ in answer.brokers}
        errors = {}
        for code, topic, *_, partitions in answer.topics:
            if code == 0 and partitions:
                self.leaders[topic] = [leader for _, _, leader, *_ in sorted(partitions, key=itemgetter(1))]
            else:
                self.leaders.pop(topic, None)
                errors[topic] = code or _LEADER_NOT_AVAILABLE
        return errors
