"""One batch through a sink, whoever wrote the sink: one result for each delivery, whatever it does.

A sink says of each delivery what became of it. Where it raises instead, or answers something else, nobody
knows which delivery that is about: the batch is sent again in halves, until the one at fault stands alone.
It alone is charged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from outbox.errors import SinkError, Transient, Unavailable, Unsent, describe
from outbox.message import Delivery, Result, Sent
from outbox.relay.waiting import is_cancelled
from outbox.sinks import BEHIND, Sink

_MOST_FAULTS = 8
"""After so many deliveries that failed alone it is not about them: the rest waits for the next round."""
_LOOK_SECONDS = 1.0
"""How soon after the machine woke a send ends whose lease did."""
_INT4, _INT8 = 2**31, 2**63
"""The columns of a receipt hold what is below, and down to the same below zero."""


class Isolated(NamedTuple):
    """What became of a batch."""

    results: Sequence[Result]
    """One per delivery, in its order."""
    cut: str | None
    """With what a send failed that there was no time to halve; None where all of it was gone through."""


async def send_isolated(
    sink: Sink, batch: Sequence[Delivery], left: Callable[[], float], *, patience: float
) -> Isolated:
    """Sends a batch.

    `left` tells how many seconds are left: all of it ends by then. Nothing is sent again that could take
    longer than that, by the `patience` of one send in seconds.
    """
    isolation = _Isolation(sink, left, patience)
    return Isolated(await isolation.send(batch), isolation.cut)


@asynccontextmanager
async def _limited(left: Callable[[], float]) -> AsyncIterator[asyncio.Timeout]:
    """Ends the block as a time-out does, once nothing is left.

    It looks again and again: asyncio's clock stands still while the machine sleeps.
    """
    loop = asyncio.get_running_loop()
    again: asyncio.TimerHandle
    async with asyncio.timeout(left()) as limit:

        def look() -> None:
            nonlocal again
            if not limit.expired():
                limit.reschedule(loop.time() + left())
                again = loop.call_later(_LOOK_SECONDS, look)

        again = loop.call_later(_LOOK_SECONDS, look)
        try:
            yield limit
        finally:
            again.cancel()


class _Isolation:
    """A batch and its parts on their way through a sink."""

    def __init__(self, sink: Sink, left: Callable[[], float], patience: float) -> None:
        self._sink = sink
        self._left = left
        self._patience = patience
        self._faults = 0
        self.cut: str | None = None

    async def send(self, batch: Sequence[Delivery]) -> Sequence[Result]:
        results = await self._ask(batch)
        if not isinstance(results, SinkError):
            return results
        if len(batch) > 1 and not isinstance(results, Unavailable):
            return await self._halves(batch, results)
        self._faults += 1
        return [results] * len(batch)

    async def _ask(self, batch: Sequence[Delivery]) -> Sequence[Result] | SinkError:
        """Returns the sink's results, or one error for all of them."""
        try:
            async with _limited(self._left) as limit:
                results = await self._sink.send(batch)
        except SinkError as error:
            return error
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            return Transient(describe(error))
        except Exception as error:  # noqa: BLE001 - a sink may be anybody's
            if limit.expired():
                return Unavailable("no answer before the lease ran out", uncertain=True)
            return Transient(describe(error))
        given = len(results) if isinstance(results, Sequence) else "no"
        if given == len(batch):
            return [result if _is_result(result) else _no_result(result) for result in results]
        return Transient(f"the sink gave {given} results for {len(batch)} deliveries", uncertain=True)

    async def _halves(self, batch: Sequence[Delivery], error: SinkError) -> list[Result]:
        late = self._left() < self._patience
        if late:
            self.cut = error.reason
        if late or self._faults >= _MOST_FAULTS:
            return [Unsent(error.reason, uncertain=True)] * len(batch)
        middle = len(batch) // 2
        first = await self.send(batch[:middle])
        failed = {
            delivery.key_hash
            for delivery, result in zip(batch, first, strict=False)
            if not isinstance(result, Sent)
        }
        rest = [delivery for delivery in batch[middle:] if delivery.key_hash not in failed]
        second = iter(await self.send(rest) if rest else ())
        behind = (BEHIND if delivery.key_hash in failed else next(second) for delivery in batch[middle:])
        return [*first, *behind]


def _is_result(answer: object) -> bool:
    """Whether it can be recorded: one place that cannot would keep the whole batch from it, for ever."""
    if not isinstance(answer, Sent):
        return isinstance(answer, SinkError)
    partition, offset, receivers = answer
    # In place: it is asked of every delivery, and three calls would take thrice as long.
    return (
        (partition is None or (isinstance(partition, int) and -_INT4 <= partition < _INT4))
        and (offset is None or (isinstance(offset, int) and -_INT8 <= offset < _INT8))
        and (receivers is None or (isinstance(receivers, int) and -_INT4 <= receivers < _INT4))
    )


def _no_result(answer: object) -> Transient:
    return Transient(f"the sink gave {answer!r:.100} for a result", uncertain=True)
