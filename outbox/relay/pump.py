"""One loop of one sink: fetch from its lanes, send, settle, and look again.

Decides nothing about failure (`verdict` does) and knows no broker (`sinks` do). No transaction is open
while it sends.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from random import random
from time import monotonic
from typing import Any

from outbox.message import Delivery, Sent
from outbox.observe import emit
from outbox.relay.batch import Fetched, Request
from outbox.relay.bell import Sleeper
from outbox.relay.breakers import Admission, SinkBreakers
from outbox.relay.isolate import send_isolated
from outbox.relay.lane import Lane
from outbox.relay.lanes import SinkLanes
from outbox.relay.lines import PROBE_ROWS, Lines, nothing_for
from outbox.relay.look_back import LookBack
from outbox.relay.outgoing import sort_out
from outbox.relay.progress import Progress
from outbox.relay.store import Position, Store
from outbox.relay.supervise import Trouble
from outbox.relay.verdict import Failure, Verdict, judge
from outbox.relay.wake import Wake
from outbox.settings import Settings, SinkSettings
from outbox.sinks import Sink

_JITTER = iter(random, None)


@dataclass(slots=True)
class ServedSink:
    """A sink that this relay serves: what its pumps share."""

    name: str
    sink: Sink
    settings: SinkSettings
    lanes: SinkLanes
    breakers: SinkBreakers
    progress: Progress = field(default_factory=Progress)


class Pump:
    """One of a sink's concurrent loops, with the lanes whose number is its own modulo their count."""

    def __init__(self, served: ServedSink, number: int, settings: Settings) -> None:
        self._served = served
        self.number = number
        self.trouble = Trouble()
        """What is wrong with it, if anything."""
        self.sleeper = Sleeper()
        """Between two rounds it waits here."""
        self._settings = settings
        self._policy = served.settings.policy
        self._lines = Lines(settings.batch_size)
        self._look_back = LookBack()
        self._most = settings.batch_size
        """How many to send at once: fewer after a send that took all the time and told of none of them."""
        self._generation: str | None = None
        self._unsettled: list[tuple[Delivery, Sent]] = []

    async def run(self, store: Store, ending: asyncio.Event) -> None:
        """Works until `ending`, and finishes the round begun by then.

        What the sink has and the database could not be told is told first on the next connection.
        """
        self._lines.reconnect()
        await self._deliver(store)
        wake = Wake(self._settings.poll_shortest_seconds, self._settings.poll_interval_seconds)
        news: Collection[int] = ()
        while not ending.is_set():
            rows, more = await self.round(store, news)
            self.trouble.end()
            # After a look at what it was told of it need not look whether there is more: it is told again.
            wait = wake.after(0 if news else rows, more=more, watched=self.sleeper.watched)
            news = await self.sleeper.sleep(wait)

    async def round(self, store: Store, news: Collection[int] = ()) -> tuple[int, bool]:
        """Fetches, sends and settles once; returns how many were settled, and whether the next finds more.

        Where it is told in which lanes something is new, it looks only there, unless something is amiss.
        """
        served = self._served
        with (
            served.breakers.admission(self.number) as admission,
            served.lanes.at_work(self.number, self._settings.pumps) as mine,
        ):
            if not mine and served.lanes.owned:
                # A relay that has none at all cannot say so: it may have left them because the sink is down.
                self._found_nothing(admission.probed)
            if admission.refused or not mine:
                return 0, False
            began = monotonic()
            all_is_well = not (admission.probed or admission.down or self._lines.apart)
            lanes = [lane for lane in mine if all_is_well and lane.number in news] or mine
            request = self.request(lanes, admission)
            batch = await self._fetch(store, mine, request)
            self._found_nothing(nothing_for(admission.probed, request.walks, batch))
            if batch.deliveries and not self._may_send(lanes):
                for delivery in batch.deliveries[:2]:
                    served.progress.tried(delivery.id, "the lease would end before a send is over")
                return 0, False
            verdict = await self._send(batch, admission)
            # Before anything is recorded: who fails in the middle of that must find the followers again.
            self._lines.rewind(lanes, request.walks, batch, verdict.released())
            self._breakers(verdict, admission)
            await self._settle(store, lanes, verdict, began)
            self._lines.took(len(batch.deliveries), monotonic() - began)
            more = self._lines.advance(lanes, request.walks, batch, verdict)
            await self._look_back.step(store, mine, self._lines.apart)
            return verdict.settled, more

    def _may_send(self, lanes: Sequence[Lane]) -> bool:
        """True if no other relay owns any of these lanes, nor will before the send is over."""
        mine = self._served.lanes
        late = self._served.settings.send_timeout_seconds > mine.countdown()()
        return not late and all(mine.owned.get(lane.number) is lane for lane in lanes)

    def _found_nothing(self, probed: Iterable[str | None]) -> None:
        for name in probed:
            self._served.breakers.found_nothing(name, self.number)

    def request(self, lanes: Sequence[Lane], admission: Admission) -> Request:
        """Returns what a round asks the store for."""
        lines = self._lines
        lines.separate((*admission.down, *admission.probes))
        walks = lines.walks(lanes, down=admission.down, probes=admission.probes, probing=admission.probing)
        return Request(
            walks=walks,
            rows=PROBE_ROWS if admission.probing else lines.rows,
            budget=self._settings.batch_bytes,
            depth=lines.depth(len(walks)),
            apart=lines.apart,
            generation=self._generation,
        )

    async def _fetch(self, store: Store, lanes: Sequence[Lane], request: Request) -> Fetched:
        batch = await store.fetch(request)
        if batch.snapshot.generation != self._generation or any(
            walk.floor > batch.snapshot.last_id for walk in request.walks
        ):
            self._generation = batch.snapshot.generation
            self._lines.reconnect()
            for lane in lanes:
                lane.forget()
        rows = len(batch.deliveries)
        emit("pump.fetched", sink=self._served.name, pump=self.number, rows=rows, bytes=batch.size)
        return batch

    async def _send(self, fetched: Fetched, admission: Admission) -> Verdict:
        served = self._served
        outgoing = sort_out(
            fetched.deliveries,
            most=1 if admission.probing else self._most,
            probes=admission.probes,
            flaws=fetched.flaws,
        )
        if not outgoing.send:
            return judge(outgoing, (), self._policy, _JITTER, served.breakers)
        with served.progress.sending():
            results, cut = await send_isolated(
                served.sink,
                outgoing.send,
                served.lanes.countdown(),
                patience=served.settings.send_timeout_seconds,
            )
        self._learn(outgoing.send, cut)
        verdict = judge(outgoing, results, self._policy, _JITTER, served.breakers)
        emit(
            "pump.sent",
            sink=served.name,
            pump=self.number,
            rows=len(results),
            sent=len(verdict.sent),
            failed=len(results) - len(verdict.sent),
        )
        return verdict

    def _learn(self, sent: Sequence[Delivery], cut: str | None) -> None:
        """Sends but one after a send that left no time to find the delivery at fault, then ever more again.

        What is sent is the oldest, so the one at fault soon stands alone, and is charged.
        """
        if cut is None:
            self._most = min(2 * self._most, self._settings.batch_size)
            return
        self._most = 1
        for delivery in sent[:2]:
            self._served.progress.tried(delivery.id, cut)

    async def _settle(self, store: Store, lanes: Sequence[Lane], verdict: Verdict, began: float) -> None:
        served = self._served
        rows = verdict.settled
        if not rows and not verdict.uncertain:
            return
        emit("pump.settling", sink=served.name, pump=self.number, rows=rows)
        self._unsettled = verdict.sent
        delivered, oldest = await self._deliver(store)
        positions = [Position(lane.number, lane.epoch) for lane in lanes]
        if verdict.failures:
            served.progress.failed(verdict.failures)
            recorded = await store.fail(positions, verdict.failures)
            self._tell_failures(f for f in verdict.failures if f.delivery.id in recorded)
        if verdict.expired:
            gone = await store.expire(positions, verdict.expired)
            for delivery in verdict.expired:
                if delivery.id in gone:
                    emit("delivery.expired", **self._about(delivery))
        if verdict.uncertain:
            await store.mark_uncertain(positions, verdict.uncertain)
        if delivered:
            served.progress.done()
        emit(
            "pump.settled",
            sink=served.name,
            pump=self.number,
            delivered=delivered,
            oldest_seconds=oldest,
            seconds=monotonic() - began,
        )

    async def _deliver(self, store: Store) -> tuple[int, float]:
        if not self._unsettled:
            return 0, 0.0
        told = await store.deliver(self._unsettled)
        self._unsettled = []
        return told

    def _breakers(self, verdict: Verdict, admission: Admission) -> None:
        breakers = self._served.breakers
        if breakers.open and verdict.sent:
            works = {None, *(delivery.destination for delivery, _ in verdict.sent)}
            for destination in works - verdict.down.keys():
                breakers.close(destination)
        for failure in verdict.failures:
            is_part = not failure.counted and failure.delay is not None
            if is_part and failure.delivery.destination in admission.probes:
                # The probe met a part that is down.
                breakers.trip(failure.delivery.destination, failure.reason)
        for destination, reason in verdict.down.items():
            breakers.trip(destination, reason)

    def _tell_failures(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            about = self._about(failure.delivery)
            attempts = failure.delivery.attempts + failure.counted
            if failure.delay is None:
                emit("delivery.parked", **about, attempts=attempts, reason=failure.reason)
            elif failure.counted:
                emit("delivery.retry", **about, attempts=attempts, delay=failure.delay, reason=failure.reason)

    def _about(self, delivery: Delivery) -> dict[str, Any]:
        return {
            "sink": self._served.name,
            "id": delivery.id,
            "message_id": str(delivery.message_id) if delivery.message_id else None,
            "event_type": delivery.type,
            "correlation_id": json.loads(delivery.headers or "{}").get("correlation_id"),
        }
