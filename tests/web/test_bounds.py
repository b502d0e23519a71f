"""A stranger at the HTTP port: silent, slow, endless, or many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from outbox.web.listen import listening
from outbox.web.probes import ProbeAnswer, probes, readyz
from tests.support.waiting import BOUNDED, until

LIVEZ = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def ready() -> ProbeAnswer:
        return readyz([])

    app = Starlette(routes=probes(ready, CollectorRegistry()))
    async with listening(app, "127.0.0.1", 0, variable="PORT") as port:
        yield port


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.web.bounds._HEAD_SECONDS", 0.3)


async def is_alive(port: int) -> bool:
    async with asyncio.timeout(BOUNDED):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LIVEZ)
        answer = await reader.readuntil(b"\r\n")
        writer.close()
    return answer == b"HTTP/1.1 200 OK\r\n"


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What came until the other side closed the connection."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.usefixtures("many_files")
async def test_it_answers_while_a_thousand_connections_are_silent(port: int) -> None:
    streams: list[Streams] = []
    for _ in range(20):
        streams += await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(50)))
        assert await is_alive(port)

    async def most_are_closed() -> bool:
        return sum(not reader.at_eof() and reader.exception() is None for reader, _ in streams) <= 400

    await until(most_are_closed)
    for _, writer in streams:
        writer.close()


async def test_one_that_is_being_answered_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.web.bounds._MOST_CONNECTIONS", 2)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def ready() -> ProbeAnswer:
        asked.set()
        await answer.wait()
        return readyz([])

    app = Starlette(routes=probes(ready, CollectorRegistry()))
    async with listening(app, "127.0.0.1", 0, variable="PORT") as port:
        waiting, waiting_writer = await asyncio.open_connection("127.0.0.1", port)
        waiting_writer.write(LIVEZ.replace(b"livez", b"readyz"))
        await asked.wait()
        silent, silent_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await is_alive(port)
        assert await ended(silent) == b""
        answer.set()
        assert await waiting.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
        for writer in (waiting_writer, silent_writer):
            writer.close()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("said", [b"", LIVEZ, LIVEZ * 3], ids=["silent", "after an answer", "after some"])
async def test_a_silent_connection_is_closed(port: int, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    async with asyncio.timeout(BOUNDED):
        found = await ended(reader)
    assert found.count(b"200 OK") == said.count(b"GET")
    writer.close()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "said",
    [b"", LIVEZ, b"POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"],
    ids=["a head", "a second head", "a body that nobody asked for"],
)
async def test_a_byte_now_and_then_is_not_waited_for(port: int, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    began = monotonic()
    answer = asyncio.create_task(ended(reader))
    while not answer.done():
        assert monotonic() - began < BOUNDED
        writer.write(b"x")
        await asyncio.wait([answer], timeout=0.05)
    writer.close()


async def test_endless_headers_are_refused(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\n" + b"x: y\r\n" * 20_000)
    assert b"200 OK" not in await ended(reader)
    assert await is_alive(port)
    writer.close()
