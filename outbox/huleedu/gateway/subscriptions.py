"""One connection to Redis that subscribes, and comes back with all its subscriptions.

Commands go through a queue, so that whoever gives up waiting does not tear the connection down.
To know that a command was carried out one waits at a *fence*, a PING with a number of its own:
Redis answers a connection in order, so when its PONG is here, every subscription asked for before
is in force, and every message published before is here too.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Protocol

import structlog
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError

from outbox.errors import describe
from outbox.huleedu.gateway.settings import GatewaySettings
from outbox.logs import Throttle
from outbox.policy import Backoff

_log = structlog.get_logger(__name__)

_RECONNECT = Backoff(first=0.1, longest=2.0)


class Unreachable(Exception):
    """Redis cannot be reached now."""


class Hearer(Protocol):
    """Who is told what the subscriptions bring, and whether they are in force."""

    def hear(self, channel: str, data: bytes) -> None:
        """Takes a message that was published on a channel."""

    def redis_came(self) -> None:
        """Takes note that every subscription is in force, for the first time or again."""

    def redis_went(self) -> None:
        """Takes note that no subscription is in force any more."""


class Subscriptions:
    """Keeps `channels` subscribed. Only `run` touches the connection."""

    def __init__(self, settings: GatewaySettings, hearer: Hearer) -> None:
        self.channels: set[str] = set()
        self.up = False
        """Whether all of them are in force and Redis answers."""
        self._hearer = hearer
        self._timeout = settings.redis_timeout_seconds
        self._interval = settings.redis_ping_seconds
        self._pool = ConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            protocol=2,
            client_name="websocket-gateway",
            socket_connect_timeout=self._timeout,
            # Silence is normal on this connection; the fences notice when it is not.
            socket_timeout=None,
        )
        self._commands: asyncio.Queue[tuple[str, ...]] | None = None
        self._fences: dict[bytes, asyncio.Future[None]] = {}
        self._numbers = itertools.count()
        self._throttle = Throttle()

    def subscribe(self, channel: str) -> None:
        """Asks for a channel; in force after the next fence, and again after each reconnect."""
        self.channels.add(channel)
        self._ask("SUBSCRIBE", channel)

    def unsubscribe(self, channel: str) -> None:
        """Gives a channel up: its messages are asked for no longer."""
        self.channels.discard(channel)
        self._ask("UNSUBSCRIBE", channel)

    async def fence(self) -> None:
        """Waits until all that was asked for, or published, before this call has come into effect.

        Raises `Unreachable` if the connection is or gets lost, TimeoutError if Redis does not answer.
        """
        if self._commands is None:
            raise Unreachable
        number = str(next(self._numbers))
        passed = self._fences[number.encode()] = asyncio.get_running_loop().create_future()
        self._ask("PING", number)
        async with asyncio.timeout(self._timeout):
            await passed

    async def run(self) -> None:
        """Keeps the connection to Redis, for ever."""
        failures = 0
        while True:
            try:
                await self._serve()
            except* (RedisError, OSError, TimeoutError, Unreachable) as problems:
                if self._throttle.passes("redis.lost"):
                    _log.warning("redis.lost", reason=describe(problems.exceptions[0]), was_up=self.up)
            failures = 1 if self.up else failures + 1
            if self.up:
                self.up = False
                self._hearer.redis_went()
            await asyncio.sleep(_RECONNECT.delay(failures, random.random()))  # noqa: S311

    async def _serve(self) -> None:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
            self._commands = asyncio.Queue()
            if self.channels:
                self._ask("SUBSCRIBE", *self.channels)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(connection, self._commands))
                tasks.create_task(self._read(connection))
                tasks.create_task(self._watch())
        finally:
            self._commands = None
            for passed in self._fences.values():
                if not passed.done():
                    passed.set_exception(Unreachable())
            self._fences.clear()
            await connection.disconnect(nowait=True)

    async def _write(self, connection: AbstractConnection, commands: asyncio.Queue[tuple[str, ...]]) -> None:
        while True:
            await connection.send_command(*await commands.get())

    async def _read(self, connection: AbstractConnection) -> None:
        while True:
            match await connection.read_response():
                case [b"message", channel, data]:
                    self._hearer.hear(channel.decode(), data)
                    # Let the sockets write: a burst must not make all of them look slow.
                    await asyncio.sleep(0)
                # While nothing is subscribed, Redis answers a PING with its bare argument.
                case [b"pong", number] | (bytes() as number):
                    if (passed := self._fences.pop(number, None)) and not passed.done():
                        passed.set_result(None)

    async def _watch(self) -> None:
        while True:
            await self.fence()
            if not self.up:
                self.up = True
                _log.info("redis.subscribed", channels=len(self.channels))
                self._hearer.redis_came()
            await asyncio.sleep(self._interval)

    def _ask(self, *command: str) -> None:
        if self._commands is not None:
            self._commands.put_nowait(command)
