"""How fast one relay retries what is parked, in key order, beside a drain of as many.

Each time the relay is at work already; from when it is asked until the last is settled. What arrived is
counted afterwards, with what was overtaken in its key.
"""

from __future__ import annotations

import asyncio
from statistics import median
from time import monotonic
from typing import Any

from outbox import operate
from outbox.operate import Selection, Who, Wish
from tests.benchmarks.count import count
from tests.benchmarks.relay import Bench, Say, Worker, prepared, worker
from tests.support.waiting import until

ROWS = 200_000
ROUNDS = 3
_PARK = """
    UPDATE outbox_queue
    SET parked_at = clock_timestamp(), last_error = 'the record of ' || id || ' bytes is over the limit'
"""
_FILL = 100_000


async def measure(say: Say, *, quick: bool = False) -> dict[str, Any]:
    rows = ROWS // 10 if quick else ROWS
    retries, drains = [], []
    async with prepared(say) as bench:
        for _ in range(1 if quick else ROUNDS):
            await _fill(bench, rows)
            async with worker(bench, "drain") as relay:
                drains.append(rows / (await relay.ask(rows=rows))["seconds"])
            await _fill(bench, rows)
            await bench.connection.execute(_PARK)
            await bench.connection.execute("CHECKPOINT")
            async with worker(bench, "drain") as relay:
                retries.append(rows / await _retry(bench, relay, rows))
            say(f"drain {drains[-1]:,.0f} rows/s, retry {retries[-1]:,.0f}")
        arrived = await asyncio.to_thread(count, bench.topics.bootstrap, bench.topic)
    return {
        "rows": rows,
        "retried_per_s": round(median(retries)),
        "drained_per_s": round(median(drains)),
        "ratio": round(median(one / other for one, other in zip(retries, drains, strict=True)), 3),
        "inversions": arrived.inversions,
        "lost": bench.written - arrived.distinct,
        "duplicates": arrived.duplicates,
    }


async def _fill(bench: Bench, rows: int) -> None:
    for start in range(0, rows, _FILL):
        await bench.fill(min(_FILL, rows - start))


async def _retry(bench: Bench, relay: Worker, rows: int) -> float:
    """Returns how many seconds it took a relay that has its lanes already."""
    done = asyncio.ensure_future(relay.ask(rows=rows))
    owned = "SELECT count(*) FROM outbox_lanes WHERE expires_at > clock_timestamp()"

    async def owns_all() -> bool:
        return bool(await bench.connection.fetchval(owned) == 64)

    await until(owns_all)
    began = monotonic()
    async with operate.connect(bench.settings) as operator:
        seen = await operate.preview(operator, Wish(act="retry", selection=Selection(sink="kafka")))
        await operate.ask(operator, seen, Who())
    await done
    return monotonic() - began
