"""Single keys from the terminal, as they are pressed; the terminal is as before afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def pressed(press: Callable[[str], None]) -> Iterator[bool]:
    """Calls `press` with each key within the block; gives whether there is a terminal to press them on."""
    if not _at_terminal():
        yield False
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    loop = asyncio.get_running_loop()

    def read() -> None:
        keys = b""
        with suppress(OSError):  # The terminal is gone.
            keys = os.read(keyboard, 32)
        if not keys:
            loop.remove_reader(keyboard)
        for key in keys.decode(errors="ignore"):
            press(key)

    try:
        tty.setcbreak(keyboard)
        loop.add_reader(keyboard, read)
        yield True
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _at_terminal() -> bool:
    """Returns True if a person has us before them; in the background, touching the terminal stops us."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
