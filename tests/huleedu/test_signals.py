"""Each service ends in good order when it is told to, and at once when it is told again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from tests.support.gateway import SECRET
from tests.support.huleedu import API_KEY
from tests.support.relay_process import RelayProcess

pytestmark = pytest.mark.slow

Start = Callable[..., Awaitable[RelayProcess]]

# Nothing runs there: a service waits for what is down, and can be told to end meanwhile.
_DATABASE = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere"}
_CONSUMER = {**_DATABASE, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "els": _CONSUMER,
    "ras": {**_CONSUMER, "INTERNAL_API_KEY": API_KEY, "ALLOWED_SERVICE_IDS": "web-page"},
    "gateway": {"REDIS_URL": "redis://127.0.0.1:1", "JWT_SECRET": SECRET},
    "page": {
        **_DATABASE,
        "GATEWAY_URL": "ws://127.0.0.1:1/ws",
        "RAS_URL": "http://127.0.0.1:1",
        "RAS_API_KEY": API_KEY,
        "JWT_SECRET": SECRET,
    },
}
ENDLESS = (str(Path(__file__).parents[1] / "support" / "endless.py"),)

each_service = pytest.mark.parametrize("service", SETTINGS)
each_signal = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a service; gives the process once it serves."""
    started: list[RelayProcess] = []

    async def start(service: str, *program: str) -> RelayProcess:
        values = {**SETTINGS[service], "LOG_FORMAT": "json", "PORT": "0"}
        settings = {f"{service.upper()}_{name}": value for name, value in values.items()}
        process = await RelayProcess.start(
            settings, tmp_path, command=f"huleedu {service}", program=program or ("-m", "outbox")
        )
        started.append(process)
        await process.event("service.started")
        return process

    yield start
    for process in started:
        process.kill()
        await process.exited()


@each_service
@each_signal
async def test_it_ends_in_good_order(start: Start, service: str, number: signal.Signals) -> None:
    process = await start(service)
    process.signal(number)
    assert await process.exited() == 0
    assert (await process.event("service.stopping"))["reason"] == number.name
    assert process.lines[-1]["event"] == "service.stopped"
    assert process.other_output == []


@each_service
@each_signal
async def test_a_second_signal_ends_it_at_once(start: Start, service: str, number: signal.Signals) -> None:
    process = await start(service, *ENDLESS)
    process.signal(number)
    await process.event("service.stopping")
    process.signal(number)
    assert await process.exited() == -number
    assert process.other_output == []


@each_service
def test_a_port_that_is_taken_says_so(service: str, tmp_path: Path) -> None:
    prefix = service.upper()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = {f"{prefix}_{name}": value for name, value in {**SETTINGS[service], "PORT": port}.items()}
        command = [sys.executable, "-m", "outbox", "huleedu", service]
        environment = {**os.environ, **settings}
        done = subprocess.run(  # noqa: S603 (our own program)
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert f"Error: {prefix}_PORT={port}: cannot listen on 127.0.0.1" in done.stderr
