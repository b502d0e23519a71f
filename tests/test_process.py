from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.waiting import PATIENCE, until

HANGING = """
import asyncio, time
from outbox.process import stop_on_signal

async def run():
    stop_on_signal(print)
    print("ready", flush=True)
    while True:
        time.sleep(60)

asyncio.run(run())
"""
STARTING = """
import asyncio
from contextlib import asynccontextmanager
from outbox.process import serve
from outbox.settings import Settings

@asynccontextmanager
async def service(settings):
    print("starting", flush=True)
    await asyncio.to_thread(input)
    print("started", flush=True)
    yield
    print("ended", flush=True)

serve(service, Settings())
"""
WAITING = """
import asyncio, time
from contextlib import asynccontextmanager
from outbox.process import serve
from outbox.settings import Settings

@asynccontextmanager
async def service(settings):
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 3_600)
    print("started", flush=True)
    yield

serve(service, Settings())
"""


@asynccontextmanager
async def running(program: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    async with asyncio.timeout(PATIENCE):
        return (await stream.readline()).decode().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
async def test_a_loop_that_hangs_is_ended_by_the_second_signal(number: signal.Signals) -> None:
    async with running(HANGING) as process:
        assert await line(process.stdout) == "ready"

        async def ended() -> bool:
            if process.returncode is None:
                process.send_signal(number)
            return process.returncode is not None

        await until(ended)
        assert process.returncode == -number


async def test_a_signal_while_a_service_starts_ends_it_once_it_has_started() -> None:
    async with running(STARTING) as process:
        assert await line(process.stdout) == "starting"
        process.terminate()
        assert "service.stopping" in await line(process.stderr)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        assert [await line(process.stdout) for _ in range(2)] == ["started", "ended"]
        assert await process.wait() == 0


async def test_a_thread_that_waits_does_not_hold_the_end() -> None:
    async with running(WAITING) as process:
        assert await line(process.stdout) == "started"
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() == 0
