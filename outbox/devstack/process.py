"""A process under a guard (see `guard.py`): it ends when we do, whatever happens to us."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

GUARD = Path(__file__).with_name("guard.py")
_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What to run, and how it ends if we don't live to end it."""

    command: list[str]
    log: Path
    """Where its output goes."""
    cwd: Path
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    """Who it runs as, if not as we do."""
    remove: Path | None = None
    """The directory to remove after it if we are gone."""


class GuardedProcess:
    """A running program."""

    def __init__(self, program: Program) -> None:
        options = ["--stop-signal", str(int(program.stop_signal))]
        if program.user is not None:
            options += ["--user", program.user]
        if program.remove is not None:
            options += ["--remove", str(program.remove)]
        with program.log.open("ab") as log:
            self._guard = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", str(GUARD), *options, *program.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=program.cwd,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """True if the process is there, paused or not."""
        return self._guard.poll() is None

    def signal(self, number: signal.Signals, *, children: bool = True) -> None:
        """Sends a signal to the process, and to its children too unless told otherwise."""
        for process in self._tree()[: None if children else 1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def pause(self) -> None:
        """Stops the process and its children by SIGSTOP, and returns when none of them runs any more."""
        self.signal(signal.SIGSTOP)
        waiting_until = time.monotonic() + _PAUSE_SECONDS
        # The signal is only sent by then: who has not taken it yet may still answer.
        while not all(map(_at_rest, self._tree())) and time.monotonic() < waiting_until:
            time.sleep(0.001)

    async def ended(self, within: float) -> int | None:
        """Waits up to `within` seconds for the end; returns the exit code, None if it is still there."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._guard.wait, within)
        if not self.running and self._guard.stdin is not None:
            self._guard.stdin.close()
        return self._guard.returncode

    def _tree(self) -> list[psutil.Process]:
        """Returns the process and its children, parents first; the guard is not among them."""
        if not self.running:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._guard.pid).children(recursive=True)
        return []


def _at_rest(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    return True
