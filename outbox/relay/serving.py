"""Whether a relay serves a sink: while it can work for it, or while nobody else can either."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from outbox.errors import describe
from outbox.observe import emit
from outbox.policy import Backoff
from outbox.relay.lanes import Lanes
from outbox.relay.pump import ServedSink
from outbox.relay.supervise import Trouble

_RECONNECT = Backoff(first=0.1, longest=2.0)


class Serving:
    """Connects one sink, and leaves its lanes to other relays while this one alone is cut off from it."""

    def __init__(
        self,
        served: ServedSink,
        lanes: Lanes,
        pumps: Sequence[Trouble],
        *,
        lease: float,
        heartbeat: float,
    ) -> None:
        self.started = asyncio.Event()
        """Set once the sink has been reached for the first time."""
        self._served = served
        self._lanes = lanes
        self._pumps = pumps
        self._lease = lease
        self._heartbeat = heartbeat
        self._away = Backoff(first=lease, longest=10 * lease)

    async def run(self) -> None:
        """Works until it is cancelled."""
        in_vain = 0
        while True:
            # Lanes are taken only then, so that a relay that can reach the sink has them.
            await self._connect()
            self.started.set()
            self._served.breakers.close(None)
            self._lanes.serve(self._served.name)
            began = asyncio.get_running_loop().time()
            reason = await self._cut_off()
            self._lanes.withdraw(self._served.name)
            served_for = asyncio.get_running_loop().time() - began
            in_vain = 1 if self._served.progress.quiet_seconds < served_for else in_vain + 1
            pause = self._away.ceiling(in_vain)
            emit("sink.left", sink=self._served.name, reason=reason, pause=pause)
            await asyncio.sleep(pause)
            while self._unconnected()[0] and self._lanes.others(self._served.name):  # noqa: ASYNC110 - of time
                await asyncio.sleep(self._heartbeat)

    async def _connect(self) -> None:
        failures = 0
        while True:
            try:
                await self._served.sink.start()
            except Exception as error:  # noqa: BLE001 - a sink may be anybody's
                emit("relay.waiting", what=self._served.name, reason=describe(error))
            else:
                return
            failures += 1
            await asyncio.sleep(_RECONNECT.ceiling(failures))

    async def _cut_off(self) -> str:
        """Returns why, once it could not work for as long as a lease and another relay serves the sink."""
        while True:
            breakers = self._served.breakers
            seconds, reason = max((breakers.down_seconds, breakers.down_reason), self._unconnected())
            if seconds > self._lease and self._lanes.others(self._served.name):
                return reason
            await asyncio.sleep(self._heartbeat)

    def _unconnected(self) -> tuple[float, str]:
        """Returns for how many seconds a pump has had no connection to the database, and why."""
        return max((pump.unconnected_seconds, pump.reason) for pump in self._pumps)
