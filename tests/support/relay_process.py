"""A relay in a process of its own, whose events a test can wait for and which it can kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import PATIENCE

SETTINGS = {"OUTBOX_LOG_FORMAT": "json", "OUTBOX_LOG_LEVEL": "debug", "OUTBOX_HTTP_PORT": "0"}


class RelayProcess:
    """`outbox relay` in a subprocess. Its log lines are JSON on stderr, each with its event's name.

    Other services that log in this way can be started too.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[dict[str, Any]] = []
        self.other_output: list[str] = []
        self._process = process
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls,
        settings: Mapping[str, str],
        cwd: Path,
        kill_at: str | None = None,
        *,
        command: str = "relay",
        program: Sequence[str] = ("-m", "outbox"),
    ) -> Self:
        """Start one with these `OUTBOX_…` settings and no others but `SETTINGS`.

        It logs at debug level, for the events of pumps; where it must be fast, ask for info.

        With `kill_at` it kills itself (SIGKILL) at that event: `pump.sent`, or `pump.sent:3` for
        the third time.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
        if kill_at is not None:
            program = (str(Path(__file__).with_name("kill_at.py")), kill_at)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *program,
            *command.split(),
            cwd=cwd,
            env={**inherited, **SETTINGS, **settings},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def event(
        self, name: str, *, deadline: float = PATIENCE, count: int = 1, **fields: Any
    ) -> dict[str, Any]:
        """Wait for the `count`-th log line of this event with these fields, from its start on."""

        def found() -> list[dict[str, Any]]:
            return [
                line for line in self.lines if line.get("event") == name and fields.items() <= line.items()
            ]

        def over() -> bool:
            return len(found()) >= count or self._reading.done()

        try:
            async with asyncio.timeout(deadline), self._news:
                await self._news.wait_for(over)
        except TimeoutError:
            raise TimeoutError(f"no {name} {fields} within {deadline:g} s; {self.last_words()}") from None
        if len(found()) < count:
            raise AssertionError(f"the relay ended before {name} {fields}; {self.last_words()}")
        return found()[count - 1]

    async def exited(self, *, deadline: float = PATIENCE) -> int:
        """Wait for its end; returns its exit code, negative for a signal."""
        async with asyncio.timeout(deadline):
            code = await self._process.wait()
            await self._reading
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM: it should stop in good order."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self.signal(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: it is frozen."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def last_words(self) -> str:
        """The end of what it logged, for a failing test to show."""
        said = [json.dumps(line) for line in self.lines[-15:]] + self.other_output[-30:]
        return "the relay said:\n" + "\n".join(said)

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            async with self._news:
                self._take(raw.decode(errors="replace").rstrip())
                self._news.notify_all()
        await self._process.wait()

    def _take(self, line: str) -> None:
        try:
            said = dict(json.loads(line))
        except ValueError:
            self.other_output.append(line)
            return
        # What libraries say while debugging is no event of ours, and much.
        if "logger" not in said or said["level"] != "debug":
            self.lines.append(said)
