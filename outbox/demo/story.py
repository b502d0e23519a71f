"""What happens, in lines: how the start goes, and what befalls servers and relays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.console import Console
from rich.text import Text

from outbox.terminal import visible

_QUIET_SECONDS = 2.0

_TOLD = {
    "breaker.opened": "{sink} is down, its breaker is open: {reason}",
    "breaker.closed": "{sink} answers again, its breaker is closed",
    "relay.lost_database": "lost its database: {reason}",
    "relay.ready": "has its database again",
    "delivery.parked": "parked delivery {id} to {sink}: {reason}",
}
"""Which events of a relay are told, and how."""


class Story:
    """Tells what happens on a console, with the seconds since the beginning."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_interactive
        """Whether it is a terminal on which lines can be drawn again."""
        self._began = monotonic()
        self._told_last: dict[tuple[str, Any], str] = {}

    def print(self, text: str = "", style: str = "", *, whole: bool = False) -> None:
        """Prints a line without a time.

        A terminal breaks it between words, unless it is to be copied `whole`.
        """
        self.console.print(Text(visible(text, keep="\n"), style), soft_wrap=whole or not self.live)

    def say(self, text: str) -> None:
        """Tells what happened now: one line, cut where the terminal ends."""
        line = visible(f"{monotonic() - self._began:6.1f} s  {text}")
        if self.live:
            self.console.print(Text(line), no_wrap=True, overflow="ellipsis")
        else:
            self.print(line)

    def hear(self, name: str, said: Mapping[str, Any]) -> None:
        """Tells what a relay logged, if it matters here and is news."""
        event, about = said.get("event", ""), (name, said.get("sink"))
        before = self._told_last.get(about, "relay.ready")
        if event in _TOLD and event != before:
            self._told_last[about] = event
            self.say(f"{name}: {_TOLD[event].format_map(said)}")

    @contextmanager
    def starting(self) -> Iterator[Callable[[str, str], None]]:
        """Tells how the start goes, within the block; gives what to call with a part and how far it is."""
        under_way: dict[str, str] = {}
        said_at: dict[str, float] = {}
        status = self.console.status("")

        def report(name: str, text: str) -> None:
            under_way[name] = text
            if text.startswith("ready"):
                del under_way[name]
                self.say(f"{name}: {text}")
            elif not self.live and monotonic() - said_at.get(name, 0.0) > _QUIET_SECONDS:
                said_at[name] = monotonic()
                self.say(f"{name}: {text}")
            line = "   ".join(f"{each}: {text}" for each, text in under_way.items())
            status.update(Text(visible(line)))

        if not self.live:
            yield report
            return
        with status:
            yield report
