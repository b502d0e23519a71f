"""What every local server does, whichever it is: start, answer, survive, end."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis

from outbox.devstack import Kafka, Postgres, Server, Valkey
from outbox.errors import DevstackError
from tests.support import servers
from tests.support.kafka import Topics
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.slow


async def _write_row(server: Server) -> None:
    connection = await asyncpg.connect(server.url)
    await connection.execute("CREATE TABLE kept AS SELECT 1")
    await connection.close()


async def _read_row(server: Server) -> bool:
    connection = await asyncpg.connect(server.url)
    found = await connection.fetchval("SELECT to_regclass('kept') IS NOT NULL")
    await connection.close()
    return bool(found)


async def _write_key(server: Server) -> None:
    async with Redis.from_url(server.url) as client:
        await client.set("kept", "1")


async def _read_key(server: Server) -> bool:
    async with Redis.from_url(server.url) as client:
        return bool(await client.exists("kept"))


async def _write_topic(server: Server) -> None:
    await Topics(server.url).create("kept")


async def _read_topic(server: Server) -> bool:
    return await Topics(server.url).read("kept") == []


@dataclass(frozen=True)
class Kind:
    make: Callable[[], Server]
    write: Callable[[Server], Awaitable[None]]
    read: Callable[[Server], Awaitable[bool]]


KINDS = {
    "postgres": Kind(Postgres, _write_row, _read_row),
    "redis": Kind(Valkey, _write_key, _read_key),
    "kafka": Kind(Kafka, _write_topic, _read_topic),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
async def server(kind: Kind) -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        yield await servers.start(stack, kind.make)


async def test_keeps_its_port_and_its_data_over_a_restart_and_a_crash(kind: Kind, server: Server) -> None:
    url = server.url
    await kind.write(server)
    await server.start()
    assert await kind.read(server)
    await server.kill()
    assert not server.running
    assert not _listens(server.port)
    await server.start()
    assert server.url == url
    assert await kind.read(server)


async def test_paused_it_keeps_its_connections_and_says_nothing(server: Server) -> None:
    server.pause()
    assert _listens(server.port)
    # Asked without being cancelled, which leaves aiokafka's connection open.
    asking = asyncio.create_task(server.answers())
    answered, _ = await asyncio.wait([asking], timeout=0.5)
    assert not answered
    server.resume()
    assert await asking


async def test_a_paused_one_can_be_stopped(server: Server) -> None:
    server.pause()
    await server.stop()
    assert not server.running


async def test_leaves_nothing_behind(kind: Kind) -> None:
    async with AsyncExitStack() as stack:
        server = await servers.start(stack, kind.make)
        processes = _processes_of(server)
        assert processes
    assert not server.home.exists()
    assert not _listens(server.port)
    assert psutil.wait_procs(processes, timeout=PATIENCE)[1] == []


async def test_says_why_it_did_not_start() -> None:
    broken = Postgres(settings={"shared_buffers": "many"})
    with pytest.raises(DevstackError, match=r"postgres did not start: .*shared_buffers"):
        async with broken:
            pass
    assert not broken.home.exists()


PARENT = """
import asyncio, signal
from outbox.devstack import {name}
from tests.support.waiting import PATIENCE
# A test run in the background has these ignored, and hands that down.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
async def main():
    async with {name}() as server:
        if {paused}:
            server.pause()
        print(server.home, server.port, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
async def test_ends_with_its_killed_parent_and_leaves_nothing(kind: Kind, paused: bool) -> None:
    await _outlive_parent(kind.make.__name__, signal.SIGKILL, paused=paused)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_ends_with_its_parent_by_whatever_signal(how: signal.Signals) -> None:
    await _outlive_parent("Valkey", how, paused=False)


async def _outlive_parent(name: str, how: signal.Signals, *, paused: bool) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT.format(name=name, paused=paused), stdout=PIPE, stderr=DEVNULL
    )
    assert parent.stdout is not None
    home, port = (await parent.stdout.readline()).decode().split()
    processes = psutil.Process(parent.pid).children(recursive=True)
    parent.send_signal(how)
    await parent.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=PATIENCE)
    assert alive == []
    assert not await asyncio.to_thread(Path(home).exists)
    assert not _listens(int(port))


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
async def test_ends_with_its_guard() -> None:
    async with Valkey() as server:
        (valkey,) = _processes_of(server)
        guard = valkey.parent()
        assert guard is not None
        guard.kill()
        assert psutil.wait_procs([valkey], timeout=PATIENCE)[1] == []
        assert not server.running


def _processes_of(server: Server) -> list[psutil.Process]:
    assert server._process is not None
    return server._process._tree()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
