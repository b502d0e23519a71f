"""Who sees what arrives: a Kafka consumer and a Redis subscriber, which share nothing with the relay's sinks.

Both listen before anything is sent, and come back by themselves when their server does. The subscriber
does what a browser's gateway does: it subscribes, then reads each channel's capped log for what it missed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from outbox.demo.ledger import Ledger
from outbox.errors import OperatorError, describe
from outbox.huleedu.channels import stream_of, user_of
from outbox.huleedu.events import SLOT_ASSIGNED, TOPICS
from outbox.redis_server import RedisServer
from outbox.settings import KafkaSettings, RedisSettings
from outbox.sinks.kafka import connection_options

_PARTITIONS = 4
_START_SECONDS = 15.0
_STOP_SECONDS = 5.0
_TRY_AGAIN_SECONDS = 0.05


@asynccontextmanager
async def kafka_listener(settings: KafkaSettings, ledger: Ledger) -> AsyncIterator[None]:
    """Reads the topic from its present end on, within the block; makes HuleEdu's topics where missing.

    Raises `OperatorError` if Kafka is not there.
    """
    options = {"bootstrap_servers": settings.bootstrap_servers, **connection_options(settings)}
    consumer = AIOKafkaConsumer(SLOT_ASSIGNED, enable_auto_commit=False, fetch_max_wait_ms=100, **options)
    try:
        try:
            async with asyncio.timeout(_START_SECONDS):
                await _make_topics(options)
                await _begin(consumer)
        except (KafkaError, OSError, TimeoutError) as error:
            raise OperatorError(
                f"Kafka: {describe(error)}; "
                f"is OUTBOX_KAFKA_BOOTSTRAP_SERVERS={settings.bootstrap_servers} right?"
            ) from error
        async with _background(_consume(consumer, ledger)):
            yield
    finally:
        # While no broker answers, it raises the cancellation of a task of its own.
        await asyncio.wait([asyncio.create_task(consumer.stop())], timeout=_STOP_SECONDS)


@asynccontextmanager
async def redis_listener(
    settings: RedisSettings, ledger: Ledger, channels: Iterable[str]
) -> AsyncIterator[None]:
    """Hears these channels within the block. Raises `OperatorError` if Redis is not there."""
    listener = _RedisListener(settings, ledger, sorted(channels))
    async with _background(listener.run()):
        try:
            async with asyncio.timeout(_START_SECONDS):
                await listener.subscribed.wait()
        except TimeoutError:
            raise OperatorError(
                f"Redis: {listener.trouble or 'no answer'}; is OUTBOX_REDIS_URL right?"
            ) from None
        yield


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        yield
        task.cancel()


async def _make_topics(options: dict[str, Any]) -> None:
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        if missing := TOPICS.keys() - set(await admin.list_topics()):
            replicas = min(3, len((await admin.describe_cluster())["brokers"]))
            topics = [NewTopic(topic, _PARTITIONS, replication_factor=replicas) for topic in missing]
            made = await admin.create_topics(topics)
            for _, code, *_ in made.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise for_code(code)
    finally:
        await admin.close()


async def _begin(consumer: AIOKafkaConsumer) -> None:
    while True:
        try:
            await consumer.start()
        except UnknownTopicOrPartitionError:  # The controller knows it, and the broker not yet.
            await asyncio.sleep(_TRY_AGAIN_SECONDS)
        else:
            break
    await consumer.seek_to_end()
    for partition in consumer.assignment():
        await consumer.position(partition)


async def _consume(consumer: AIOKafkaConsumer, ledger: Ledger) -> None:
    while True:
        try:
            async for record in consumer:
                key = (record.key or b"").decode(errors="replace")
                if ledger.knows(key):
                    ledger.see(key, UUID(dict(record.headers)["message_id"].decode()))
        except KafkaError:
            await asyncio.sleep(_TRY_AGAIN_SECONDS)


class _RedisListener:
    def __init__(self, settings: RedisSettings, ledger: Ledger, channels: Sequence[str]) -> None:
        self.subscribed = asyncio.Event()
        self.trouble: str | None = None
        self._settings = settings
        self._ledger = ledger
        self._channels = channels
        self._from_log: set[UUID] = set()

    async def run(self) -> None:
        while True:
            try:
                async with _client(self._settings) as client:
                    await self._listen(client)
            except (RedisError, OSError) as error:
                self.trouble = describe(error)
                await asyncio.sleep(_TRY_AGAIN_SECONDS)

    async def _listen(self, client: Redis) -> None:
        behind = True
        async with client.pubsub() as subscription:
            await subscription.subscribe(*self._channels)
            async for message in subscription.listen():
                if message["type"] == "message":
                    self._hear(message["channel"].decode(), json.loads(message["data"]))
                elif behind:  # One SUBSCRIBE for all: its first answer says that all are in force.
                    await self._catch_up(client)
                    self.subscribed.set()
                    behind = False

    def _hear(self, channel: str, notice: dict[str, Any]) -> None:
        if "message_id" not in notice:  # A note that something was given up, which the outbox tells too.
            return
        message_id = UUID(notice["message_id"])
        if message_id in self._from_log:
            self._from_log.remove(message_id)
        else:
            self._ledger.see(user_of(channel), message_id)

    async def _catch_up(self, client: Redis) -> None:
        for channel in self._channels:
            entries: Any = await client.xrange(stream_of(channel))
            for _, entry in entries:
                key, message_id = user_of(channel), UUID(entry[b"message_id"].decode())
                if self._ledger.awaits(key, message_id):
                    self._ledger.see(key, message_id)
                    self._from_log.add(message_id)


def _client(settings: RedisSettings) -> Redis:
    url = settings.url.get_secret_value() if settings.url else ""
    options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": 3.0}
    if url.startswith(("rediss://", "rediss+sentinel://")):
        files = (settings.ssl_ca_file, settings.ssl_cert_file, settings.ssl_key_file)
        options |= dict(zip(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"), files, strict=True))
    return Redis.from_pool(RedisServer.of(url, **options).pool())
