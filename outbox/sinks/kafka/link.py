"""A connection to one broker of Kafka, on which a request is written once, and answered or taken back.

Built on aiokafka's connections and protocol. Nothing is retried and nothing classified here.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple, Self

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import SaslAuthenticateRequest
from aiokafka.protocol.produce import ProduceRequest

from outbox.errors import describe
from outbox.sinks.network import withdraw

TopicPartition = tuple[str, int]
"""A topic and a partition of it."""

_ACKS_ALL = -1
_IDLE_MS = 180_000  # before balancers and firewalls drop an idle connection in silence
_SHARE_OF_LIFETIME = 0.8  # of a login, after which another connection is opened
_CLOSE_SECONDS = 1.0


class BrokerError(Exception):
    """A broker cannot be reached or did not answer; the message says which and why, in one line."""


class Produced(NamedTuple):
    """A broker's answer about one record batch."""

    code: int
    offset: int
    """Of the batch's first record."""


class _Connection(AIOKafkaConnection):  # type: ignore[misc]  # aiokafka has no types
    """A connection that, however it ends, ends at once and sends nothing more."""

    renew_at = math.inf
    """When it is time for another one (monotonic): the broker closes it when its login has grown old."""

    def send(self, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        answer: Awaitable[Any] = super().send(request, expect_response)
        return self._logged_in(answer) if isinstance(request, SaslAuthenticateRequest) else answer

    async def _logged_in(self, answer: Awaitable[Any]) -> Any:
        began = time.monotonic()
        response = await answer
        # https://cwiki.apache.org/confluence/display/KAFKA/KIP-368; aiokafka does not log in again.
        if lifetime := getattr(response, "session_lifetime_ms", 0):
            self.renew_at = began + lifetime / 1_000 * _SHARE_OF_LIFETIME
        return response

    def close(
        self, reason: CloseReason | None = None, exc: BaseException | None = None
    ) -> asyncio.Future[None]:
        if self._writer is not None:
            withdraw(self._writer.transport)
        closed: asyncio.Future[None] = super().close(reason, exc)
        return closed


class Link:
    """A connection to one broker."""

    def __init__(self, connection: _Connection) -> None:
        self.throttled_until = 0.0
        """The broker reads nothing from us before this time (monotonic): a quota is exceeded."""
        self._connection = connection
        self._asking = 0
        self._retired = False

    @classmethod
    async def open(cls, host: str, port: int, options: Mapping[str, Any]) -> Self:
        """Connects and logs in. Raises BrokerError."""
        connection = _Connection(host, port, max_idle_ms=_IDLE_MS, **options)
        try:
            await connection.connect()
        except (KafkaError, OSError) as error:
            raise BrokerError(f"{host}:{port}: {describe(error)}") from error
        return cls(connection)

    @property
    def connected(self) -> bool:
        """True if it was still open when last heard of."""
        return bool(self._connection.connected())

    @property
    def old(self) -> bool:
        """True if no request should begin on it, because the broker is about to close it."""
        return time.monotonic() > self._connection.renew_at

    @property
    def throttled(self) -> bool:
        """True if the broker reads nothing from us now."""
        return time.monotonic() < self.throttled_until

    def retire(self) -> None:
        """Closes the connection once every request on it has its answer."""
        self._retired = True
        if not self._asking:
            self._connection.close()

    async def ask(self, request: Any) -> Any:
        """Sends a request and returns the broker's answer. Raises BrokerError.

        Whenever this does not return an answer, what was not sent yet never will be.
        """
        self._asking += 1
        try:
            return await self._exchange(request)
        finally:
            self._asking -= 1
            if self._retired:
                self.retire()

    async def _exchange(self, request: Any) -> Any:
        try:
            return await self._connection.send(request)
        except (KafkaError, OSError) as error:
            self._connection.close()
            raise BrokerError(
                f"{self._connection.host}:{self._connection.port}: {describe(error)}"
            ) from error
        except BaseException:
            self._connection.close()
            raise

    async def produce(
        self, batches: Mapping[TopicPartition, bytes | bytearray], seconds: float
    ) -> dict[TopicPartition, Produced]:
        """Sends record batches, one per partition; the broker may wait so many seconds for its replicas."""
        topics: dict[str, list[tuple[int, bytes | bytearray]]] = defaultdict(list)
        for (topic, partition), data in batches.items():
            topics[topic].append((partition, data))
        request = ProduceRequest(
            transactional_id=None,
            required_acks=_ACKS_ALL,
            timeout=max(1, int(seconds * 1_000)),
            topics=list(topics.items()),
        )
        response = await self.ask(request)
        self.throttled_until = time.monotonic() + response.throttle_time_ms / 1_000
        return {
            (topic, partition): Produced(code, offset)
            for topic, partitions in response.topics
            for partition, code, offset, *_ in partitions
        }

    async def close(self) -> None:
        """Closes the connection within a second, whatever the broker does."""
        await asyncio.wait([self._connection.close()], timeout=_CLOSE_SECONDS)
