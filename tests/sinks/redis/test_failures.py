"""The Redis sink with a server that stalls, dies, is full or follows another, and over TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import cast

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from outbox.devstack import Valkey
from outbox.errors import Unavailable
from outbox.message import Result
from outbox.settings import RedisSettings
from outbox.sinks.redis import RedisSink
from tests.support import servers
from tests.support.certificates import Certificates, make_certificates
from tests.support.deliveries import delivery, ids
from tests.support.sinks import is_sent, started
from tests.support.waiting import BOUNDED, until

TIMEOUT = 3.0


def down(results: list[Result], *, uncertain: bool, says: str) -> bool:
    return all(
        isinstance(result, Unavailable)
        and (result.scope, result.uncertain) == ("sink", uncertain)
        and says in str(result)
        for result in results
    )


async def is_under_way(sink: RedisSink) -> bool:
    return bool(sink._under_way)


async def logged(url: str, channel: str) -> list[str]:
    async with Redis.from_url(url) as redis:
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrange(f"{channel}:log"))
        return [fields[b"message_id"].decode() for _, fields in entries]


async def test_start_tells_at_once_that_nobody_is_there() -> None:
    sink = RedisSink(RedisSettings(url=SecretStr("redis://127.0.0.1:1")))
    began = monotonic()
    for _ in range(2):
        with pytest.raises(Unavailable, match="ConnectionError: Error 111"):
            await sink.start()
    assert monotonic() - began < 3.0, "neither waited its three seconds out"
    await sink.stop()


class WithoutStreams(Valkey):
    """A server whose host has taken a command away."""

    def command(self) -> list[str]:
        return [*super().command(), "--rename-command", "XADD", ""]


async def test_a_command_that_the_server_has_not_is_the_servers_trouble() -> None:
    async with AsyncExitStack() as stack:
        server = await servers.start(stack, WithoutStreams)
        settings = RedisSettings(url=SecretStr(server.url), stream=True)
        sink = await stack.enter_async_context(started(RedisSink(settings)))
        results = await sink.send([delivery("ws:1"), delivery("ws:2")])
    assert down(results, uncertain=False, says="unknown command")


async def test_a_stalled_server(own_redis: Valkey) -> None:
    before, during, after = (
        [delivery("ws:1", "k", payload=bytes(50_000)) for _ in range(200)] for _ in range(3)
    )
    async with started(
        RedisSink(
            RedisSettings(url=SecretStr(own_redis.url), stream=True, stream_max_length=10_000),
            timeout=TIMEOUT,
        )
    ) as sink:
        assert await is_sent(sink, before)
        own_redis.pause()
        began = monotonic()
        assert down(await sink.send(during), uncertain=True, says="no answer within 3 s")
        assert down(await sink.send(after), uncertain=False, says="no answer within 3 s")
        assert monotonic() - began < BOUNDED
        began = monotonic()
        await sink.stop()
        assert monotonic() - began < BOUNDED
        own_redis.resume()
        assert await is_sent(sink, after)
    found = await logged(own_redis.url, "ws:1")
    assert found in ([*ids(before), *ids(after)], [*ids(before), *ids(during), *ids(after)])


async def test_start_and_stop_before_a_stalled_server(own_redis: Valkey) -> None:
    own_redis.pause()
    sink = RedisSink(RedisSettings(url=SecretStr(own_redis.url)))
    began = monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await sink.start()
    with pytest.raises(Unavailable, match="no answer within 3 s"):
        await sink.start()
    await sink.stop()
    assert monotonic() - began < BOUNDED
    own_redis.resume()
    async with started(sink):
        pass


async def test_stop_ends_a_send(own_redis: Valkey) -> None:
    async with started(RedisSink(RedisSettings(url=SecretStr(own_redis.url)))) as sink:
        assert await is_sent(sink, [delivery("ws:1")])
        own_redis.pause()
        rows = [delivery("ws:1", payload=bytes(1_000_000)) for _ in range(30)]
        sending = asyncio.create_task(sink.send(rows))
        await until(partial(is_under_way, sink))
        began = monotonic()
        await sink.stop()
        results = await sending
        assert monotonic() - began < BOUNDED
        assert down(results, uncertain=True, says="")
        own_redis.resume()


async def test_a_server_that_dies_and_comes_back(own_redis: Valkey) -> None:
    async with started(RedisSink(RedisSettings(url=SecretStr(own_redis.url)))) as sink:
        assert await is_sent(sink, [delivery("ws:1")])
        own_redis.pause()
        sending = asyncio.create_task(sink.send([delivery("ws:1"), delivery("ws:1")]))
        await until(partial(is_under_way, sink))
        await own_redis.kill()
        assert down(await sending, uncertain=True, says="ConnectionError")
        assert down(await sink.send([delivery("ws:1")]), uncertain=False, says="ConnectionError: Error 111")
        await own_redis.start()
        assert await is_sent(sink, [delivery("ws:1")])


async def test_a_connection_that_the_server_closed_while_it_was_idle(own_redis: Valkey) -> None:
    async with (
        started(RedisSink(RedisSettings(url=SecretStr(own_redis.url)))) as sink,
        Redis.from_url(own_redis.url) as redis,
    ):
        assert await is_sent(sink, [delivery("ws:1")])
        await redis.client_kill_filter(_type="normal", skipme=True)
        assert await is_sent(sink, [delivery("ws:1")])


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), "OutOfMemoryError"),
        (("REPLICAOF", "127.0.0.1", "1"), "ReadOnlyError"),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), "NOREPLICAS"),
    ],
)
async def test_a_server_that_takes_no_writes(own_redis: Valkey, command: tuple[str, ...], says: str) -> None:
    async with (
        Redis.from_url(own_redis.url) as redis,
        started(RedisSink(RedisSettings(url=SecretStr(own_redis.url), stream=True))) as sink,
    ):
        assert await is_sent(sink, [delivery("ws:1")])
        await cast("Callable[..., Awaitable[object]]", redis.execute_command)(*command)
        assert down(await sink.send([delivery("ws:1"), delivery("ws:2")]), uncertain=False, says=says)


# TLS


@asynccontextmanager
async def behind_tls(url: str, certificates: Certificates) -> AsyncIterator[str]:
    """The URL of a server that ends TLS before the one at `url`, and asks for a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
    context.load_cert_chain(certificates.server, certificates.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    host, _, port = url.removeprefix("redis://").partition("/")[0].rpartition(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pass_on(reader, server_writer), pass_on(server_reader, writer))

    server = await asyncio.start_server(connected, "localhost", 0, ssl=context)
    async with server:
        yield f"rediss://localhost:{server.sockets[0].getsockname()[1]}/0"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


async def test_tls_with_a_client_certificate(redis_url: str, certificates: Certificates) -> None:
    async with behind_tls(redis_url, certificates) as url:
        files = {"ssl_cert_file": certificates.client, "ssl_key_file": certificates.client_key}
        sink = RedisSink(RedisSettings(url=SecretStr(url), ssl_ca_file=certificates.ca, **files))
        async with started(sink):
            assert await is_sent(sink, [delivery("ws:1")])


async def test_a_server_that_a_stranger_vouches_for(
    redis_url: str, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = make_certificates(tmp_path_factory.mktemp("stranger"))
    async with behind_tls(redis_url, certificates) as url:
        sink = RedisSink(RedisSettings(url=SecretStr(url), ssl_ca_file=stranger.ca))
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await sink.start()
        await sink.stop()
