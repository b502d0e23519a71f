"""`outbox up` as a person runs it, without a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin, Subprotocol

from tests.support.kafka import Topics
from tests.support.page import upload
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.slow

IN_A_TERMINAL = (
    sys.executable,
    "-c",
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
)
WELL = r"{sink}: (\d+) of \1 arrived; in order for each of \d+ \w+; (none|\d+ came) twice"


class Up:
    """The command in a subprocess, and the processes that it starts."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.output = ""
        self._family: set[psutil.Process] = set()

    async def says(self, words: str) -> None:
        """Read on until it says this."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.output += line.decode()
            self._family |= set(psutil.Process(self.process.pid).children(recursive=True))
            if words in self.output:
                return
        raise AssertionError(f"it ended without {words!r}:\n{self.output}")

    def press(self, key: str) -> None:
        """On its terminal."""
        assert self.process.stdin is not None
        self.process.stdin.write(key.encode())

    async def ends(self) -> int:
        """Read to the end; its exit code."""
        assert self.process.stdout is not None
        self.output += (await self.process.stdout.read()).decode()
        return await self.process.wait()

    def left(self) -> list[psutil.Process]:
        """What is still there of what it started."""
        assert self._family
        return psutil.wait_procs(self._family, timeout=3)[1]


def contents(folder: Path) -> list[Path]:
    return list(folder.iterdir())


Start = Callable[..., Awaitable[Up]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """For its temporary files; the user PostgreSQL runs as may enter it, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o755)
        yield path


@pytest.fixture
async def up(folder: Path) -> AsyncIterator[Start]:
    started: list[Process] = []

    async def start(*arguments: str, terminal: bool = False, **settings: str) -> Up:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
        process = await asyncio.create_subprocess_exec(
            *(*(IN_A_TERMINAL if terminal else ()), sys.executable, "-m", "outbox", "up", *arguments),
            env={**inherited, **settings, "TMPDIR": str(folder), "TERM": "xterm", "COLUMNS": "120"},
            cwd=folder,
            stdin=PIPE if terminal else DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
        )
        started.append(process)
        return Up(process)

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def given(database: str, kafka: Topics, redis_url: str) -> dict[str, str]:
    """Settings for servers that are there already."""
    return {
        "OUTBOX_DATABASE_URL": database,
        "OUTBOX_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "OUTBOX_REDIS_URL": redis_url,
    }


async def test_a_relay_is_killed_and_everything_arrives(up: Start, folder: Path) -> None:
    demo = await up("--seconds", "5", "--break", "relay", "--break-seconds", "1")
    await demo.says("relays: ready")
    await demo.says("in its place")
    assert await demo.ends() == 0, demo.output
    assert re.search(r"\d+ more transactions were rolled back on purpose", demo.output)
    assert re.search(r"relay \d was killed, its lanes had new owners after \d\.\d s", demo.output)
    assert re.search(WELL.format(sink="kafka"), demo.output)
    assert re.search(WELL.format(sink="redis"), demo.output)
    assert "Every promise was kept." in demo.output
    assert demo.left() == []
    assert contents(folder) == []


async def test_a_signal_while_it_starts(up: Start, folder: Path) -> None:
    demo = await up()
    await demo.says("kafka: starting")
    await demo.says("postgres: ready")
    demo.process.send_signal(signal.SIGINT)
    assert await demo.ends() == 130
    assert "Traceback" not in demo.output
    assert demo.left() == []
    assert contents(folder) == []


async def test_a_signal_while_it_runs_on_given_servers(up: Start, given: dict[str, str]) -> None:
    demo = await up("--rate", "100", **given)
    await demo.says("written")
    demo.process.send_signal(signal.SIGTERM)
    assert await demo.ends() == 0, demo.output
    assert re.search(WELL.format(sink="kafka"), demo.output)
    assert re.search(WELL.format(sink="redis"), demo.output)
    assert demo.left() == []


async def test_an_upload_on_the_page_finds_its_slot(up: Start, given: dict[str, str]) -> None:
    demo = await up(**given)
    await demo.says("find their slots: http")
    found = re.search(r"find their slots: (http\S+)", demo.output)
    assert found
    async with httpx.AsyncClient(base_url=found[1]) as http:
        token = (await http.post("/v1/demo/login", json={"user": "astrid"})).json()["token"]
        http.headers["Authorization"] = f"Bearer {token}"
        gateway = (await http.get("/v1/page")).json()["gateway_url"]
        batch = (await http.post("/v1/batches", json={"slots": 1})).json()["batch_id"]
        offered = [Subprotocol("bearer"), Subprotocol(token)]
        async with connect(gateway, subprotocols=offered, origin=Origin(found[1]), proxy=None) as socket:
            upload_id = uuid4()
            assert (await upload(http, batch, upload_id=upload_id)).status_code == 201
            told = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
        assert told["data"]["file_upload_id"] == str(upload_id)

        async def ras_knows() -> bool:
            answer = await http.get(f"/v1/batches/{batch}/status")
            return answer.is_success and answer.json()["essays"][0]["filename"] == "essay.txt"

        await until(ras_knows)
    demo.process.send_signal(signal.SIGTERM)
    assert await demo.ends() == 0, demo.output
    assert demo.left() == []


async def test_keys_in_a_terminal(up: Start, given: dict[str, str]) -> None:
    demo = await up(terminal=True, **given)
    await demo.says("lanes: 32 kafka, 32 redis")
    await demo.says("take away: l relay   q quit")
    demo.press("q")
    assert await demo.ends() == 0, demo.output
    assert "Every promise was kept." in demo.output
    assert demo.left() == []


async def test_a_given_server_is_not_broken(up: Start) -> None:
    demo = await up("--break", "kafka", OUTBOX_KAFKA_BOOTSTRAP_SERVERS="localhost:9092")
    assert await demo.ends() == 2
    assert "OUTBOX_KAFKA_BOOTSTRAP_SERVERS names one of yours" in demo.output
    assert len(demo.output.splitlines()) == 1


async def test_a_folder_in_use_is_refused(up: Start, folder: Path) -> None:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        demo = await up("--keep", ".")
        assert await demo.ends() == 1
    assert "in use by another" in demo.output
