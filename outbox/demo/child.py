"""A command of `outbox` as a process of its own, which ends when we do, whatever happens to us.

It is ready when it has logged a certain event, and what it logs is heard here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from outbox.devstack.process import GUARD
from outbox.errors import DevstackError

Hear = Callable[[str, Mapping[str, Any]], None]
"""Hears the name of a child and what it logged: one line, with the event's name as `event`."""

_START_SECONDS = 30.0


class Child:
    """`outbox ARGUMENTS`, with this environment over that of this process; it must log JSON."""

    def __init__(
        self, name: str, arguments: list[str], environment: Mapping[str, str], *, ready: str, hear: Hear
    ) -> None:
        self.name = name
        self.pid: int | None = None
        """Its process id, once it is ready."""
        self.said: dict[str, Mapping[str, Any]] = {}
        """The last line of each event."""
        self._arguments = arguments
        self._environment = {**os.environ, **environment}
        self._ready = ready
        self._hear = hear
        self._guard: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._last_words: deque[str] = deque(maxlen=2)

    @property
    def running(self) -> bool:
        """True if the process is there."""
        return self._reading is not None and not self._reading.done()

    @property
    def last_words(self) -> str:
        """The end of what the process said, in one line."""
        return " | ".join(self._last_words) or "it said nothing"

    async def start(self) -> None:
        """Starts the process and waits until it is ready.

        Raises `DevstackError` with its last words if it is not.
        """
        try:
            self._guard = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", str(GUARD), sys.executable, "-P", "-m", "outbox", *self._arguments),
                env=self._environment,
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=PIPE,
                start_new_session=True,
                limit=2**20,
            )
            self._reading = asyncio.create_task(self._read(self._guard))
            await self._until_ready()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends the process in good order; its guard does it by force if that takes long."""
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
        await self._end()

    async def kill(self) -> None:
        """Kills the process by SIGKILL: a crash."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await self._end()

    async def _until_ready(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while self.running and self._ready not in self.said:
                    self._news.clear()
                    await self._news.wait()
        self.pid = next((process.pid for process in self._processes()), None)
        if self._ready not in self.said:
            raise DevstackError(f"{self.name} did not start: {self.last_words}")

    def _processes(self) -> list[psutil.Process]:
        """Returns the process and its children; the guard is not among them."""
        if self._guard is None or self._guard.returncode is not None:
            return []
        try:
            return psutil.Process(self._guard.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    async def _end(self) -> None:
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _read(self, guard: Process) -> None:
        assert guard.stderr is not None  # noqa: S101 - for mypy
        async for raw in guard.stderr:
            self._take(raw.decode(errors="replace").strip())
            self._news.set()
        await guard.wait()
        self._news.set()

    def _take(self, line: str) -> None:
        try:
            said = dict(json.loads(line))
        except ValueError:
            self._last_words.append(line)
            return
        self._last_words.append(" ".join(str(said[name]) for name in ("event", "reason") if name in said))
        self.said[str(said.get("event"))] = said
        self._hear(self.name, said)
