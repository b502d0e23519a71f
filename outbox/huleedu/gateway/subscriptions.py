"""One connection to Redis that subscribes, and comes back with all its subscriptions.

Commands go through a queue, so that whoever gives up waiting does not tear the connection down.
To know that a command was carried out one waits at a *fence*, a PING with a number of its own:
Redis answers a connection in order, so when its PONG is here, every subscription asked for before
is in force, and every message published before is here too. That things are still published where this
connection leads shows a probe now and then: what the process publishes to itself must arrive.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Protocol

import structlog
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError

from outbox.errors import describe
from outbox.huleedu.gateway.probe import Probe, Unfit
from outbox.huleedu.gateway.revoked import PREFIX as REVOKED
from outbox.huleedu.gateway.settings import GatewaySettings
from outbox.logs import Throttle
from outbox.policy import Backoff
from outbox.redis_server import RedisServer

_log = structlog.get_logger(__name__)

_RECONNECT = Backoff(first=0.1, longest=2.0)
_SILENT = "it does not answer, so nobody hears what is published"


class Unreachable(Exception):
    """Redis cannot be reached now."""


class Hearer(Protocol):
    """Who is told what the subscriptions bring, and whether they are in force."""

    def hear(self, channel: str, data: bytes) -> None:
        """Takes a message that was published on a channel."""

    def hear_of_revocation(self, user: str) -> None:
        """Takes note that tokens of a user may have been revoked."""

    def redis_came(self) -> None:
        """Takes note that every subscription is in force, for the first time or again."""

    def redis_went(self) -> None:
        """Takes note that no subscription is in force any more."""


class Subscriptions:
    """Keeps `channels` subscribed. Only `run` touches the connection."""

    def __init__(self, settings: GatewaySettings, server: RedisServer, hearer: Hearer) -> None:
        self.channels: set[str] = set()
        self.up = False
        """Whether all of them are in force, and what is published arrives."""
        self.trouble = _SILENT
        """Why not, while they are not."""
        self._hearer = hearer
        self._timeout = settings.redis_timeout_seconds
        self._interval = settings.redis_ping_seconds
        self.probe = Probe(server, settings.redis_clock_leeway_seconds)
        # Silence is normal on this connection; the fences notice when it is not.
        self._pool: ConnectionPool = server.pool(client_name="websocket-gateway", socket_timeout=None)
        self._commands: asyncio.Queue[tuple[str, ...]] | None = None
        self._fences: dict[int, asyncio.Future[None]] = {}
        """Who waits at a fence, by its number; those of lower numbers are passed before."""
        self._probes: dict[bytes, asyncio.Future[None]] = {}
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
        number = next(self._numbers)
        passed = self._fences[number] = asyncio.get_running_loop().create_future()
        self._ask("PING", str(number))
        async with asyncio.timeout(self._timeout):
            await passed

    async def _prove(self) -> None:
        """Waits for what this process publishes to itself. Raises as `fence` and `Probe.publish` do."""
        text = f"probe {next(self._numbers)}"
        passed = self._probes[text.encode()] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout):
                await self.probe.publish(text)
                await passed
        finally:
            del self._probes[text.encode()]

    def _pass_fences(self, last: int) -> None:
        """Takes note that this fence is passed, and with it all before, which were not sent perhaps."""
        for number in list(itertools.takewhile(lambda each: each <= last, self._fences)):
            _pass(self._fences.pop(number))

    async def run(self) -> None:
        """Keeps the connection to Redis, for ever."""
        failures = 0
        while True:
            try:
                await self._serve()
            except* (RedisError, OSError, TimeoutError, Unreachable, Unfit) as problems:
                self._lost(problems.exceptions[0])
            failures = 1 if self.up else failures + 1
            if self.up:
                self.up = False
                self._hearer.redis_went()
            await asyncio.sleep(_RECONNECT.delay(failures, random.random()))  # noqa: S311

    def _lost(self, problem: BaseException) -> None:
        self.trouble = str(problem) if isinstance(problem, Unfit) else _SILENT
        if self._throttle.passes(("redis.lost", self.trouble)):
            _log.warning("redis.lost", reason=describe(problem), was_up=self.up)

    async def _serve(self) -> None:
        connection: AbstractConnection = self._pool.make_connection()
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()
            self._commands = asyncio.Queue()
            self._ask("PSUBSCRIBE", f"{REVOKED}*")
            self._ask("SUBSCRIBE", self.probe.channel, *self.channels)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(connection, self._commands))
                tasks.create_task(self._read(connection))
                tasks.create_task(self._watch())
        finally:
            self._commands = self.probe.replication = None
            for passed in (*self._fences.values(), *self._probes.values()):
                if not passed.done():
                    passed.set_exception(Unreachable())
            self._fences.clear()
            await connection.disconnect(nowait=True)

    async def _write(self, connection: AbstractConnection, commands: asyncio.Queue[tuple[str, ...]]) -> None:
        while True:
            asked = [await commands.get()]
            while not commands.empty():
                asked.append(commands.get_nowait())
            await connection.send_packed_command(connection.pack_commands(_once_fenced(asked)))

    async def _read(self, connection: AbstractConnection) -> None:
        while True:
            match await connection.read_response():
                case [b"message", channel, data] if channel == self.probe.channel.encode():
                    _pass(self._probes.get(data))
                case [b"message", channel, data]:
                    self._hearer.hear(channel.decode(), data)
                    # Let the sockets write: a burst must not make all of them look slow.
                    await asyncio.sleep(0)
                case [b"pmessage", _, channel, _]:
                    self._hearer.hear_of_revocation(channel.decode(errors="replace").removeprefix(REVOKED))
                # Before anything is subscribed, Redis answers a PING with its bare argument.
                case [b"pong", number] | (bytes() as number) if number.isdigit():
                    self._pass_fences(int(number))

    async def _watch(self) -> None:
        while True:
            await self.fence()
            await self._prove()
            if not self.up:
                self.up = True
                _log.info("redis.subscribed", channels=len(self.channels))
                self._hearer.redis_came()
            await asyncio.sleep(self._interval)

    def _ask(self, *command: str) -> None:
        if self._commands is not None:
            self._commands.put_nowait(command)


def _pass(passed: asyncio.Future[None] | None) -> None:
    if passed and not passed.done():
        passed.set_result(None)


def _once_fenced(asked: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Gives what was asked, and of all fences the last one, behind it."""
    fence = None
    for command in asked:
        if command[0] == "PING":
            fence = command
        else:
            yield command
    if fence:
        yield fence
