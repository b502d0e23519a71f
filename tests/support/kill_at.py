"""The `outbox` command that ends itself by SIGKILL at a named event: `kill_at.py EVENT[:COUNT] relay`."""

from __future__ import annotations

import os
import signal
import sys

from outbox.cli import main
from outbox.observe import Event, subscribe


def run(name: str, count: int) -> None:
    seen = 0

    def kill(event: Event) -> None:
        nonlocal seen
        seen += event.name == name
        if seen >= count:
            os.kill(os.getpid(), signal.SIGKILL)

    with subscribe(kill):
        main()


if __name__ == "__main__":
    event, _, times = sys.argv.pop(1).partition(":")
    run(event, int(times or 1))
