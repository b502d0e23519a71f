"""A relay: lanes, pumps, maintenance and shutdown, composed. No policy of its own.

It lives through sessions with the database. Each has connections of its own, takes its leases anew,
and ends when the database goes away (the next one begins when it is back) or the relay stops. Sinks and
what they have acknowledged outlive a session.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from time import monotonic
from types import TracebackType
from typing import Any, Self

import asyncpg
from structlog.contextvars import bound_contextvars

from outbox.errors import describe
from outbox.health import Failing, Health, SinkHealth
from outbox.observe import emit
from outbox.relay.bell import Bell
from outbox.relay.parts import Parts
from outbox.relay.published import OpenBreakers
from outbox.relay.pump import Pump, ServedSink
from outbox.relay.serving import Serving
from outbox.relay.store import NO_DATABASE, ConnectionLost, Store, relay_connection, tells_history
from outbox.relay.supervise import Trouble, keep_running
from outbox.relay.waiting import wait_for
from outbox.schema.catalog import missing
from outbox.settings import Settings, load

_LONGEST_RECONNECT_SECONDS = 2.0
_SINK_STOP_SECONDS = 5.0


class Relay:
    """Delivers what the outbox holds until it is stopped.

    `await relay.run()` works until `stop()`; `async with Relay(settings):` runs it beside other things,
    in a service's lifespan or a test. Without `settings` they come from the environment. Raises
    `SettingsError` at once where a sink cannot be made; a server that is down is waited for.

    A relay beside other things that ends by itself logs `relay.failed`, says so in `health()`, and calls
    `on_failure` with the reason: the service may end, or begin another one.
    """

    def __init__(
        self, settings: Settings | None = None, *, on_failure: Callable[[BaseException], None] | None = None
    ) -> None:
        self._settings = settings or load()
        self._on_failure = on_failure
        self._parts = Parts.of(self._settings)
        self._lanes = self._parts.lanes
        self._served = self._parts.served
        self._serving = {served.name: self._serve(served) for served in self._served}
        sleepers = {name: [pump.sleeper for pump in pumps] for name, pumps in self._parts.pumps.items()}
        self._bell = Bell(
            self._settings.database_schema, sleepers, longest=self._settings.poll_interval_seconds
        )
        self._stopping = asyncio.Event()
        self._bound: asyncio.Timeout | None = None
        self._deadline = math.inf
        """When it must be over, on the loop's clock."""
        self._task: asyncio.Task[None] | None = None
        self._tells_history = True
        self._waiting_for: str | None = "start"
        self._reason = ""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.run(), name="outbox relay")
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop("the block ended")
        if self._task:
            await self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Tells of a relay that ended though nobody asked it to."""
        if self._stopping.is_set():
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        failure = error or RuntimeError("it ended by itself")
        self._wait_no_more(failure)
        if self._on_failure:
            self._on_failure(failure)

    def _wait_no_more(self, failure: BaseException) -> None:
        self._waiting_for, self._reason = "end", describe(failure)
        with bound_contextvars(relay=self._lanes.name):
            emit("relay.failed", reason=self._reason)

    def stop(self, reason: str = "asked to") -> None:
        """Stops in good order: finishes and settles what is on its way, then releases the lanes.

        It takes the grace period at the most; the last of it, a fifth, is for the sinks to end their
        connections.
        """
        if self._stopping.is_set():
            return
        emit("relay.stopping", reason=reason)
        self._stopping.set()
        grace = self._settings.shutdown_grace_seconds
        self._deadline = asyncio.get_running_loop().time() + grace
        if self._bound:
            self._bound.reschedule(self._deadline - min(_SINK_STOP_SECONDS, grace / 5))

    async def run(self) -> None:
        """Works until `stop`. Raises TimeoutError if the grace period did not suffice."""
        with bound_contextvars(relay=self._lanes.name):
            emit("relay.started", id=str(self._lanes.relay), sinks=[served.name for served in self._served])
            try:
                await self._live()
            finally:
                await self._stop_sinks()
                emit("relay.stopped")

    def health(self) -> Health:
        """Returns how this relay is doing, by what it knows itself; asks nobody."""
        return Health(
            waiting_for=self._waiting_for,
            reason=self._reason,
            stopping=self._stopping.is_set(),
            sinks=tuple(
                SinkHealth(
                    sink=served.name,
                    lanes=frozenset(served.lanes.owned),
                    open_breakers=served.breakers.open,
                    quiet_seconds=served.progress.quiet_seconds,
                    in_vain=served.progress.in_vain(),
                    failing=self._failing(served),
                )
                for served in self._served
            ),
        )

    def _failing(self, served: ServedSink) -> tuple[Failing, ...]:
        now = monotonic()
        troubles = ((pump.number, pump.trouble) for pump in self._parts.pumps[served.name])
        return tuple(
            Failing(pump=number, reason=trouble.reason, seconds=now - trouble.since)
            for number, trouble in troubles
            if trouble.failures
        )

    async def _live(self) -> None:
        try:
            async with asyncio.timeout(None) as self._bound, asyncio.TaskGroup() as group:
                serving = [group.create_task(each.run()) for each in self._serving.values()]
                await self._sessions()
                for task in serving:
                    task.cancel()
        finally:
            self._bound = None

    async def _stop_sinks(self) -> None:
        stopping = [asyncio.create_task(served.sink.stop()) for served in self._served]
        if stopping:
            left = self._deadline - asyncio.get_running_loop().time()
            _, hanging = await asyncio.wait(stopping, timeout=max(0.0, min(_SINK_STOP_SECONDS, left)))
            for task in hanging:
                task.cancel()

    def _serve(self, served: ServedSink) -> Serving:
        settings = self._settings
        return Serving(
            served,
            self._lanes,
            [pump.trouble for pump in self._parts.pumps[served.name]],
            lease=settings.lease_seconds,
            heartbeat=settings.heartbeat_seconds,
        )

    async def _sessions(self) -> None:
        wait = 0.1
        while not self._stopping.is_set():
            began = monotonic()
            try:
                async with relay_connection(self._settings, "outbox relay") as connection:
                    if problem := await missing(connection, self._settings.database_schema):
                        self._wait("schema", problem)
                    else:
                        await self._session(connection)
            except (ConnectionLost, *NO_DATABASE) as error:
                reason = str(error) if isinstance(error, ConnectionLost) else describe(error)
                if self._waiting_for is None:
                    emit("relay.lost_database", reason=reason)
                self._wait("postgres", reason)
            wait = 0.1 if monotonic() - began > _LONGEST_RECONNECT_SECONDS else 2 * wait
            await wait_for(self._stopping, min(wait, _LONGEST_RECONNECT_SECONDS))

    def _wait(self, what: str, reason: str) -> None:
        self._waiting_for, self._reason = what, reason
        if not self._stopping.is_set():
            emit("relay.waiting", what=what, reason=reason)

    async def _session(self, connection: asyncpg.Connection) -> None:
        """Works on one connection to the database until it is lost or the relay stops."""
        self._tells_history = await tells_history(connection)
        await self._lanes.join(connection)
        await self._parts.maintenance.published.begin(connection)
        session = _Session(self._stopping)
        self._waiting_for, self._reason = None, ""
        emit("relay.ready")
        async with asyncio.TaskGroup() as group:
            beat = group.create_task(session.guard(self._beat(connection)))
            watch = group.create_task(session.end_with(self._stopping))
            rouse = group.create_task(self._rouse(session.ending))
            ring = group.create_task(session.guard(self._ring(session.ending)))
            work = [
                group.create_task(session.guard(self._pump(served, pump, session.ending)))
                for served in self._served
                for pump in self._parts.pumps[served.name]
            ]
            work.append(group.create_task(session.guard(self._maintain(session.ending))))
            work.append(group.create_task(session.guard(self._operate(session.ending))))
            await asyncio.wait(work)
            for each in (beat, watch, rouse, ring):
                each.cancel()
        if session.lost:
            raise session.lost
        await self._lanes.leave(connection)

    async def _beat(self, connection: asyncpg.Connection) -> None:
        breakers = {served.name: served.breakers for served in self._served}
        told = OpenBreakers(breakers, self._lanes.relay, self._settings.database_schema)
        while True:
            await self._lanes.tick(connection)
            await told.tell(connection)
            await self._parts.operations.look(connection)
            await wait_for(self._lanes.nudged, self._settings.heartbeat_seconds)

    async def _pump(self, served: ServedSink, pump: Pump, ending: asyncio.Event) -> None:
        async def life() -> None:
            pump.trouble.connected = False
            async with relay_connection(self._settings, f"outbox {served.name} pump") as connection:
                pump.trouble.connected = True
                store = Store(
                    connection,
                    self._settings,
                    served.name,
                    self._lanes.relay,
                    tells_history=self._tells_history,
                )
                await pump.run(store, ending)

        def tell(reason: str, pause: float) -> None:
            emit("pump.failed", sink=served.name, pump=pump.number, reason=reason, pause=pause)

        await _first(self._serving[served.name].started, ending)
        try:
            await keep_running(life, ending, pump.trouble, tell)
        finally:
            pump.trouble.end()  # With the session: in the next one it has not tried yet.

    async def _rouse(self, ending: asyncio.Event) -> None:
        await ending.wait()
        self._bell.wake_all()

    async def _ring(self, ending: asyncio.Event) -> None:
        if self._settings.database_pooler == "transaction":
            return  # Each look would be four trips to the database.

        async def life() -> None:
            async with relay_connection(self._settings, "outbox bell") as connection:
                async with relay_connection(self._settings, "outbox bell") as other:
                    heard = await self._bell.listen(connection, other)
                emit("bell.listening" if heard else "bell.deaf")
                await self._bell.run(connection, ending)

        def tell(reason: str, pause: float) -> None:
            emit("bell.failed", reason=reason, pause=pause)

        await keep_running(life, ending, Trouble(), tell)

    async def _maintain(self, ending: asyncio.Event) -> None:
        async def life() -> None:
            async with relay_connection(self._settings, "outbox maintenance") as connection:
                await self._parts.maintenance.run(connection, ending)

        def tell(reason: str, pause: float) -> None:
            emit("maintenance.failed", reason=reason, pause=pause)

        await keep_running(life, ending, Trouble(), tell)

    async def _operate(self, ending: asyncio.Event) -> None:
        def tell(reason: str, pause: float) -> None:
            del pause
            emit("operation.failed", operation=None, reason=reason)

        await keep_running(lambda: self._parts.operations.run(ending), ending, Trouble(), tell)


class _Session:
    """What the loops of one session share: when to end, and why."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self.ending = asyncio.Event()
        self.lost: BaseException | None = None
        if stopping.is_set():
            self.ending.set()

    async def guard(self, loop: Coroutine[Any, Any, None]) -> None:
        """Runs a loop; when it loses the database, the others finish their round and end too."""
        try:
            await loop
        except (ConnectionLost, *NO_DATABASE) as error:
            self.lost = self.lost or error
            self.ending.set()

    async def end_with(self, stopping: asyncio.Event) -> None:
        """Ends the session when the relay stops."""
        await stopping.wait()
        self.ending.set()


async def _first(*events: asyncio.Event) -> None:
    """Waits until one of these events is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
