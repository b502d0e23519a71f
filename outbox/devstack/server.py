"""One local server: start, stop, kill, pause, resume, on one port and one data directory.

Owns the life of a process; what the server is and when it answers, its subclasses know. Nothing
here belongs to an event loop, so a server may be started in one loop and stopped in another.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import secrets
import shutil
import signal
import socket
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from outbox.devstack.process import GuardedProcess, Program
from outbox.errors import DevstackError

HOST = "127.0.0.1"

_given: set[int] = set()
"""The ports that this process was given."""


class Server(ABC):
    """A server process of our own, which ends when this process does, at the latest.

    `home` holds its data and its log; None means a temporary directory, removed at the end of
    `async with`. Starting again after `stop` or `kill` keeps port and data.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    temporary_folder: ClassVar[Path | None] = None
    """Where temporary directories are made; None means where the system makes them."""

    def __init__(self, home: Path | None = None) -> None:
        self.temporary = home is None
        self.home = self._temporary_home() if home is None else home.resolve()
        self.port = free_port()
        self._process: GuardedProcess | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The address at which clients find the server."""

    async def prepare(self) -> None:  # noqa: B027
        """Makes the data directory ready, if it is not yet."""

    @abstractmethod
    def command(self) -> list[str]:
        """Returns the server's command line."""

    @abstractmethod
    async def answers(self) -> bool:
        """Returns True if the server serves clients now; raises OSError while nothing listens."""

    @property
    def user(self) -> str | None:
        """The unprivileged user that the server runs as, or None for our own."""
        return None

    @property
    def log(self) -> Path:
        """The file of what the server printed."""
        return self.home / "server.log"

    @property
    def running(self) -> bool:
        """True if the server's process is there, paused or not."""
        return self._process is not None and self._process.running

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self.temporary:
            shutil.rmtree(self.home, ignore_errors=True)

    async def start(self, timeout: float = 60.0) -> None:  # noqa: ASYNC109
        """Starts the server, again if it runs, and waits until it answers, at most `timeout` seconds."""
        await self.stop()
        self.home.mkdir(parents=True, exist_ok=True)
        await self.prepare()
        self._process = self._spawn(self.command())
        try:
            await self._until_it_answers(time.monotonic() + timeout)
        except BaseException:
            await self.stop(grace=3.0)
            raise

    async def stop(self, grace: float = 20.0) -> None:
        """Ends the server in good order, or by force after `grace` seconds. Safe to call twice."""
        if self._process is None:
            return
        self._process.signal(signal.SIGCONT)
        self._process.signal(self.stop_signal, children=False)
        if await self._process.ended(grace) is None:
            await self.kill()

    async def kill(self) -> None:
        """Kills the server with its children by SIGKILL: a crash."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            await self._process.ended(10.0)

    async def run(self, command: list[str], report: Callable[[str], None] = lambda _: None) -> bool:
        """Runs a program that makes the home ready, as the server's user; returns whether it succeeded.

        It writes to the same log; `report` hears the log's last line whenever it is another one.
        """
        self._process = process = self._spawn(command)
        heard = self.last_words(1)
        try:
            while (code := await process.ended(within=0.2)) is None:
                if (said := self.last_words(1)) != heard:
                    report(heard := said)
        finally:
            await self.stop(grace=3.0)
        return code == 0

    def last_words(self, lines: int = 5) -> str:
        """Returns the end of the server's log, in one line."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])

    def pause(self) -> None:
        """Pauses the server: its connections stay open and nothing answers."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """Lets a paused server go on."""
        if self._process is not None:
            self._process.signal(signal.SIGCONT)

    def _temporary_home(self) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"outbox-{self.name}-", dir=self.temporary_folder))

    def _spawn(self, command: list[str]) -> GuardedProcess:
        return GuardedProcess(
            Program(
                command=command,
                log=self.log,
                cwd=self.home,
                stop_signal=self.stop_signal,
                user=self.user,
                remove=self.home if self.temporary else None,
            )
        )

    async def _until_it_answers(self, deadline: float) -> None:
        while not await self._answers():
            if not self.running or time.monotonic() > deadline:
                raise DevstackError(f"{self.name} did not start: {self.last_words()}")
            await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(5.0):
                return await self.answers()
        except OSError:
            return False


def free_port() -> int:
    """Returns a port that nobody listens on, below the range that the system gives to outgoing connections.

    Within that range a client that tries to reach a stopped server could be given the server's own
    port and end up connected to itself. No port is given twice: whoever has it may not listen there yet.
    """
    while True:
        port = 15_000 + secrets.randbelow(15_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                if port not in _given:
                    _given.add(port)
                    return port


def wheel_files(package: str, pattern: str) -> list[Path]:
    """Returns files of an installed package, found without importing it; none if it is not there."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    return [path for folder in folders for path in sorted(Path(folder).glob(pattern))]
