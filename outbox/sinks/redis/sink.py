"""The Redis sink: each batch in one transaction, published and, on demand, kept in a log.

A delivery's payload is published on the channel that is its destination; zero receivers is success.
With `OUTBOX_REDIS_STREAM` it is appended to the capped stream `<channel>:log` first, as an entry with
the fields `message_id` and `data` (the payload): who subscribes and then reads the log misses nothing.
A delivery without a payload says nothing here, and is refused for good.

Each batch asks first whom it speaks to: a Cluster is refused, and a master that has become a replica is left.
Where Sentinels are named, they are asked about once a second who the master is.

The user needs the rights `+multi +exec +ping +publish` and `&<channel>`; for the stream also `+xadd
+expire` and `~<channel>:log`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import Connection, ConnectionPool
from redis.exceptions import RedisError, ResponseError

from outbox.errors import SettingsError, Unavailable, describe
from outbox.finding import Finding
from outbox.message import Delivery, Result
from outbox.redis_server import RedisServer, Whereabouts, unfit
from outbox.settings import RedisSettings
from outbox.sinks.checking import Use
from outbox.sinks.network import tls_context, withdraw
from outbox.sinks.redis.check import of_clock, of_memory, of_rights
from outbox.sinks.redis.replies import (
    Command,
    by_the_right_server,
    describe_reply,
    results_of,
    without_payload,
)

_CONNECT_SECONDS = 3.0
_STOP_SECONDS = 2.0
_CHECKED = 20
"""Channels whose rights are checked: mostly they are alike."""


class RedisSink:
    """Sends to the Redis (or Valkey) of `settings`; a send takes at most `timeout` seconds."""

    def __init__(self, settings: RedisSettings, *, timeout: float = 10.0) -> None:
        self._stream = settings.stream
        self._max_length = settings.stream_max_length
        self._ttl = settings.stream_ttl_seconds
        self._timeout = timeout
        server = _server(settings, timeout)
        self._pool: ConnectionPool = server.pool()
        self._whereabouts = Whereabouts(server.sentinels) if server.sentinels else None
        self._under_way: set[asyncio.WriteTransport] = set()

    async def start(self) -> None:
        """Connects. Raises `Unavailable` while the server does not answer, after a few seconds at most."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS), self._connection() as connection:
                hello, answer = await self._exchange(connection, [_HELLO, _pack("PING")])
        except TimeoutError:
            raise Unavailable(f"no answer within {_CONNECT_SECONDS:g} s") from None
        except (RedisError, OSError) as error:
            raise Unavailable(describe(error)) from None
        if isinstance(answer, ResponseError):
            raise Unavailable(describe_reply(answer))
        if reason := unfit(hello):
            raise Unavailable(reason)

    async def send(self, deliveries: Sequence[Delivery]) -> list[Result]:
        """Sends a batch; returns one result per delivery, in its order."""
        results = without_payload(deliveries)
        reason, under_way = "", False
        try:
            async with asyncio.timeout(self._timeout):
                while rows := [row for row in range(len(deliveries)) if row not in results]:
                    commands = list(self._commands(rows, deliveries))
                    async with self._connection() as connection:
                        under_way = True
                        hello, *replies = await self._exchange(
                            connection, [_HELLO, _MULTI, *(packed for _, packed in commands), _EXEC]
                        )
                        under_way = False
                        found = by_the_right_server(hello, results_of(commands, replies, deliveries))
                        if any(isinstance(result, Unavailable) for result in found.values()):
                            await connection.disconnect(nowait=True)  # Another may be the master by now.
                    results |= found
        except TimeoutError:
            reason = f"no answer within {self._timeout:g} s"
        except (RedisError, OSError) as error:
            reason = describe(error)
        down = Unavailable(reason, uncertain=under_way)
        return [results.get(row, down) for row in range(len(deliveries))]

    async def check(self, use: Use) -> list[Finding]:
        """Returns what of its rights, its memory and its clock would hurt; it changes and sends nothing."""
        try:
            async with asyncio.timeout(self._timeout):
                return [*of_rights(await self._try(use.destinations)), *await self._look(use.clock)]
        except TimeoutError:
            raise Unavailable(f"no answer within {self._timeout:g} s") from None
        except (RedisError, OSError) as error:
            raise Unavailable(describe(error)) from None

    async def _try(self, channels: Sequence[str]) -> dict[str, list[Any]]:
        """Returns the answers to what a message on each channel takes, in a transaction that is given up."""
        async with self._connection() as connection:
            found = {"": await self._exchange(connection, [_MULTI])}
            # Outside a transaction it would be carried out.
            is_begun = not isinstance(found[""][0], ResponseError)
            for channel in channels[:_CHECKED] if is_begun else ():
                log = f"{channel}:log"
                stream = [_pack("XADD", log, "*", "data", ""), _pack("EXPIRE", log, self._ttl)]
                commands = [*(stream if self._stream else ()), _pack("PUBLISH", channel, "")]
                found[channel] = await self._exchange(connection, commands)
            await connection.disconnect(nowait=True)  # Which gives it up, whatever this user may do.
        return found

    async def _look(self, clock: Callable[[], float]) -> list[Finding]:
        async with self._connection() as connection:
            before = clock()
            (time,) = await self._exchange(connection, [_pack("TIME")])
            after = clock()
            (info,) = await self._exchange(connection, [_pack("INFO", "memory")])
        told = of_clock(time, (before + after) / 2, abs(after - before) / 2)
        return [*of_memory(info, stream=self._stream), *told]

    async def stop(self) -> None:
        """Closes all connections; a send that is under way ends, uncertain."""
        for transport in self._under_way:
            withdraw(transport)
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._pool.disconnect()

    def _commands(self, rows: Iterable[int], deliveries: Sequence[Delivery]) -> Iterator[Command]:
        logs: set[str] = set()
        for row in rows:
            delivery = deliveries[row]
            channel, payload = delivery.destination, delivery.payload or b""
            if self._stream:
                log = f"{channel}:log"
                entry = ("message_id", str(delivery.message_id), "data", payload)
                yield row, _pack("XADD", log, "MAXLEN", "~", self._max_length, "*", *entry)
                if log not in logs:
                    logs.add(log)
                    yield row, _pack("EXPIRE", log, self._ttl)
            yield row, _pack("PUBLISH", channel, payload)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection: Connection = await self._pool.get_connection()
        try:
            if self._whereabouts and await self._whereabouts.have_changed(connection):
                await connection.disconnect(nowait=True)
                await connection.connect()
            yield connection
        finally:
            await self._pool.release(connection)

    async def _exchange(self, connection: Connection, commands: Sequence[bytes]) -> list[Any]:
        """Sends commands; returns the reply to each, errors among them.

        Whenever this does not return, what was not sent yet never will be.
        """
        transport = connection._writer.transport  # type: ignore[union-attr]  # it is connected  # noqa: SLF001
        self._under_way.add(transport)
        try:
            await connection.send_packed_command(b"".join(commands), check_health=False)
            return [await _reply(connection) for _ in commands]
        except BaseException:
            withdraw(transport)
            raise
        finally:
            self._under_way.discard(transport)


async def _reply(connection: Connection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def _pack(*words: str | bytes | int) -> bytes:
    return bytes(pack_command(words))  # type: ignore[arg-type]  # its stub knows commands of one word only


_HELLO, _MULTI, _EXEC = _pack("HELLO"), _pack("MULTI"), _pack("EXEC")


def _server(settings: RedisSettings, timeout: float) -> RedisServer:
    if settings.url is None:
        raise SettingsError("OUTBOX_REDIS_URL is not set; example: redis://localhost:6379/0")
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": None,  # The time of a send is ours to keep.
        "socket_connect_timeout": min(_CONNECT_SECONDS, timeout),
    }
    url = settings.url.get_secret_value()
    if url.startswith(("rediss://", "rediss+sentinel://")):
        ca, cert, key = settings.ssl_ca_file, settings.ssl_cert_file, settings.ssl_key_file
        tls_context("OUTBOX_REDIS_SSL", ca=ca, cert=cert, key=key)  # says what is wrong with the files
        options |= {"ssl_ca_certs": ca, "ssl_certfile": cert, "ssl_keyfile": key, "ssl_check_hostname": True}
    elif settings.ssl_ca_file or settings.ssl_cert_file:
        raise SettingsError(
            "OUTBOX_REDIS_SSL_… is for TLS, and OUTBOX_REDIS_URL does not start with rediss:// or rediss+sentinel://"
        )
    try:
        return RedisServer.of(url, **options)
    except ValueError as error:
        raise SettingsError(f"OUTBOX_REDIS_URL: {error}") from None
