"""A relay as it ships, in a process of its own: for each line, deliver that many rows and tell the time."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import monotonic, process_time
from typing import Any

from outbox import observe
from outbox.cli.relay import collect_less_often
from outbox.message import Delivery, Result, Sent
from outbox.relay import Relay
from outbox.settings import load
from outbox.sinks import Sink


class Stopwatch:
    """From the first lanes taken to the last of so many rows settled."""

    def __init__(self, rows: int) -> None:
        self.left = rows
        self.began = self.ended = self.cpu = 0.0
        self.done = asyncio.Event()

    def __call__(self, event: observe.Event) -> None:
        match event.name:
            case "lanes.taken" if not self.began:
                self.began, self.cpu = monotonic(), process_time()
            case "pump.settled":
                self.left -= event.fields["delivered"]
                if self.left <= 0 and not self.ended:
                    self.ended, self.cpu = monotonic(), process_time() - self.cpu
                    self.done.set()


class Acknowledged:
    """A sink that notes when the one behind it acknowledged each delivery."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.start, self.stop = sink.start, sink.stop
        self.times: dict[int, float] = {}

    async def send(self, deliveries: Sequence[Delivery]) -> Sequence[Result]:
        results = await self._sink.send(deliveries)
        now = monotonic()
        self.times.update(
            (delivery.id, now)
            for delivery, result in zip(deliveries, results, strict=True)
            if isinstance(result, Sent)
        )
        return results


async def drain(rows: int, acknowledged: str | None = None) -> dict[str, Any]:
    relay, watch = Relay(load()), Stopwatch(rows)
    served = relay._served[0]
    times = Acknowledged(served.sink)
    if acknowledged:
        served.sink = times
    with observe.subscribe(watch):
        async with relay:
            await watch.done.wait()
    if acknowledged:
        await asyncio.to_thread(Path(acknowledged).write_text, json.dumps(times.times))
    return {
        "seconds": watch.ended - watch.began,
        "cpu_seconds": watch.cpu,
        "peak_rss_mb": getrusage(RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    collect_less_often()  # as `outbox relay` does
    for line in sys.stdin:
        print(json.dumps(asyncio.run(drain(**json.loads(line)))), flush=True)
