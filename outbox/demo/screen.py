"""What a person sees while the stream flows: a live table on a terminal, else a line now and then.

Reads from the parts and changes nothing. What happens is told in lines of its own, above the table.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from itertools import islice
from statistics import median
from time import monotonic

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from outbox.demo.breakage import Breakage
from outbox.demo.ledger import Ledger
from outbox.demo.relays import Relays
from outbox.demo.story import Story
from outbox.demo.stream import Stream
from outbox.terminal import visible

_REFRESH_SECONDS = 0.25
_LINE_SECONDS = 2.0
_RATE_SECONDS = 2.0
_LATE_SECONDS = 1.0
_RECENT = 200

KEYS = {"k": "kafka", "r": "redis", "p": "postgres", "l": "relay"}
"""What each key takes away."""


class Screen:
    """Shows how the stream flows, on the story's console."""

    def __init__(
        self,
        story: Story,
        ledgers: Mapping[str, Ledger],
        stream: Stream,
        relays: Relays,
        breakage: Breakage,
    ) -> None:
        self._story = story
        self._ledgers = ledgers
        self._stream = stream
        self._relays = relays
        self._breakage = breakage
        self._rates = {name: _Rate() for name in ("written", *ledgers)}
        self._keyboard = False

    async def run(self, *, keyboard: bool) -> None:
        """Shows the screen, for ever; with `keyboard`, what its keys do too."""
        self._keyboard = keyboard
        self._measure()
        if self._story.live:
            with Live(console=self._story.console, auto_refresh=False, transient=True) as live:
                while True:
                    self._measure()
                    live.update(self._picture(), refresh=True)
                    await asyncio.sleep(_REFRESH_SECONDS)
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            self._measure()
            self._story.say(self._line())

    def _measure(self) -> None:
        self._rates["written"].take(self._stream.written)
        for sink, ledger in self._ledgers.items():
            self._rates[sink].take(ledger.arrived)

    def _picture(self) -> Group:
        lines: list[RenderableType] = [
            self._head(),
            Text(),
            self._sinks(),
            Text(),
            *self._living(),
            *self._trouble(),
        ]
        if self._keyboard:
            takes = "  ".join(
                f"{key} {name}" for key, name in KEYS.items() if name in self._breakage.breakable
            )
            lines += [Text(), Text(f"take away: {takes}   q quit", style="dim")]
        return Group(Text(), *lines)

    def _head(self) -> Text:
        return Text.assemble(
            ("written ", "bold"),
            f"{self._rates['written'].last:,} messages, {self._rates['written'].a_second:.0f}/s, "
            f"in {self._stream.committed:,} transactions; {self._stream.rolled_back:,} more were rolled back",
        )

    def _sinks(self) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("sink")
        for name in ("arrived", "waiting", "per s", "lag", "retrying", "parked", "twice"):
            table.add_column(name, justify="right")
        table.add_column("breaker")
        for sink, ledger in self._ledgers.items():
            table.add_row(
                sink,
                f"{ledger.arrived:,}",
                Text(f"{ledger.waiting:,}", style="yellow" if self._is_late(ledger) else ""),
                f"{self._rates[sink].a_second:.0f}",
                Text(self._lag(ledger), style="yellow" if self._is_late(ledger) else ""),
                self._queued(sink, "retrying", "yellow"),
                self._queued(sink, "parked", "red"),
                f"{ledger.repeated:,}",
                self._breaker(sink),
            )
        return table

    def _living(self) -> list[Text]:
        lines = []
        for relay in self._relays.living:
            lanes = ", ".join(f"{count} {sink}" for sink, count in relay.lanes.items())
            lines.append(Text.assemble((relay.name, "bold"), f"  pid {relay.child.pid}, lanes: {lanes}"))
        return lines

    def _trouble(self) -> list[Text]:
        now = monotonic()
        lines = [
            Text(f"{name} is away, {_return(until - now)}", style="bold red")
            for name, until in self._breakage.away.items()
        ]
        if trouble := self._stream.trouble:
            line = visible(f"nothing can be written: {trouble}")
            lines.append(Text(line, style="red", no_wrap=True, overflow="ellipsis"))
        return lines

    def _line(self) -> str:
        parts = [f"written {self._rates['written'].last:,} ({self._rates['written'].a_second:.0f}/s)"]
        for sink, ledger in self._ledgers.items():
            parts.append(
                f"{sink} {ledger.arrived:,} arrived, {ledger.waiting:,} waiting, {self._lag(ledger)}"
            )
            if (breaker := self._breaker(sink).plain) != "closed":
                parts.append(f"{sink} breaker {breaker}")
        parts += [f"{name} away" for name in self._breakage.away]
        return "  ".join(parts)

    def _lag(self, ledger: Ledger) -> str:
        """Returns the median lag of what arrived last; while something is late, how late it is."""
        if self._is_late(ledger):
            return f"{self._late(ledger):.1f} s"
        recent = list(islice(reversed(ledger.lags), _RECENT))
        return f"{1_000 * median(recent):.0f} ms" if recent else "-"

    def _is_late(self, ledger: Ledger) -> bool:
        return self._late(ledger) > _LATE_SECONDS

    def _late(self, ledger: Ledger) -> float:
        return 0.0 if ledger.oldest is None else monotonic() - ledger.oldest

    def _queued(self, sink: str, state: str, style: str) -> Text:
        """Returns how many deliveries are in that state, as the first relay says that can read the queue."""
        queues = (relay.queue for relay in self._relays.living if relay.queue)
        count = next(queues, {}).get((sink, state))
        return Text("?") if count is None else Text(f"{count:,}", style=style if count else "")

    def _breaker(self, sink: str) -> Text:
        relays = self._relays.living
        opened = sum(bool(relay.breakers.get(sink)) for relay in relays)
        if not opened:
            return Text("closed", style="green")
        return Text(
            "open" if opened == len(relays) else f"open on {opened} of {len(relays)} relays", style="red"
        )


def _return(seconds: float) -> str:
    return f"to be started in {seconds:.0f} s" if seconds > 0 else "starting"


class _Rate:
    """A count, and how fast it grew over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def take(self, count: int) -> None:
        """Takes note of what the count is now."""
        now = monotonic()
        self._samples.append((now, count))
        while len(self._samples) > 2 and self._samples[1][0] < now - _RATE_SECONDS:
            self._samples.popleft()

    @property
    def last(self) -> int:
        """The count as it was last."""
        return self._samples[-1][1]

    @property
    def a_second(self) -> float:
        """How much the count grows in a second."""
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began) if ended > began else 0.0
