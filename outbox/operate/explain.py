"""Why something is not out yet: for each cause a sentence, the evidence, and what mends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate import evidence
from outbox.operate.evidence import Head, LaneState, OpenBreaker, Writer
from outbox.operate.pages import page
from outbox.operate.pauses import Pause, pauses, said
from outbox.operate.state import DONE, DeliveryState, Selection

_NEVER = datetime.max.replace(tzinfo=UTC)
_AT_WORK = timedelta(seconds=10)
"""What is due for less than that waits for its turn, as ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One thing that keeps it from going out."""

    sentence: str
    remedy: str
    """A command, or what else to do."""
    since: datetime | None = None
    until: datetime | None = None
    """When it ends by itself; None: when somebody does something."""
    evidence: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was asked about, and why it is not out yet: the cause that holds it longest first."""

    about: str
    delivery: DeliveryState | None = None
    """The one that it is about, or the first that waits of what it is about."""
    causes: Sequence[Cause] = field(default_factory=list)
    """None: nothing keeps it from going out."""


async def explain(connection: AsyncConnection, delivery: DeliveryState) -> Explanation:
    """Explains one delivery."""
    about = f"Delivery {delivery.id} to {delivery.sink}: {delivery.destination}"
    if delivery.state in DONE:
        return Explanation(
            f"{about} was {delivery.state} at {delivery.settled_at:%Y-%m-%d %H:%M:%S}Z", delivery
        )
    causes = [cause async for cause in _of_delivery(connection, delivery)]
    if delivery.state != "parked":
        place = delivery.sink, delivery.destination
        causes += [cause async for cause in _of_place(connection, *place, delivery)]
    if not causes:
        causes = [cause async for cause in _of_progress(connection, delivery)]
    return Explanation(f"{about} is {delivery.state}", delivery, _longest_first(causes))


async def explain_id(connection: AsyncConnection, id_: int) -> Explanation:
    """Explains the delivery of an id, be it there or not."""
    found = (await page(connection, Selection(ids=[id_]), 1)).deliveries
    if found:
        return await explain(connection, found[0])
    sink, is_drawn = await evidence.written(connection, id_)
    if sink is not None:
        cause = Cause(
            sentence=f"It was written for {sink}, but its queue row is missing, and no receipt is there: "
            "nobody sends it.",
            remedy="outbox repair",
        )
        return Explanation(f"Delivery {id_} is lost", None, [cause])
    if not is_drawn:
        return Explanation(f"Delivery {id_} was never written: the newest ids are lower")
    causes = [_uncommitted(id_, writer) for writer in await evidence.writers(connection)]
    what = "is not committed yet, was rolled back, or" if causes else "was rolled back, or"
    return Explanation(f"Delivery {id_} {what} is pruned", None, causes)


async def explain_place(connection: AsyncConnection, selection: Selection) -> Explanation | None:
    """Explains a sink, a destination or a key by the first delivery that waits; None: there is none."""
    about = " ".join(f"{name} {value}" for name, value in _named(selection))
    for states in (("ready", "held", "retrying"), ("scheduled",), ("parked",)):
        found = (await page(connection, _with(selection, states), 1)).deliveries
        if found:
            of_first = await explain(connection, found[0])
            first = f"{of_first.about[0].lower()}{of_first.about[1:]}"
            return Explanation(f"{about}: {first}, the first that waits", found[0], of_first.causes)
    if selection.sink is None:
        return None
    causes = [cause async for cause in _of_place(connection, selection.sink, selection.destination, None)]
    return Explanation(f"{about}: nothing waits", None, _longest_first(causes))


def _named(selection: Selection) -> Iterator[tuple[str, str]]:
    for name in ("sink", "destination", "key"):
        if (value := getattr(selection, name)) is not None:
            yield name, value


def _with(selection: Selection, states: Sequence[str]) -> Selection:
    return Selection(sink=selection.sink, destination=selection.destination, key=selection.key, states=states)


def _longest_first(causes: Sequence[Cause]) -> list[Cause]:
    return sorted(causes, key=lambda cause: (cause.until or _NEVER, -_seconds(cause.since)), reverse=True)


def _seconds(time: datetime | None) -> float:
    return time.timestamp() if time else 0.0


async def _of_delivery(connection: AsyncConnection, delivery: DeliveryState) -> AsyncIterator[Cause]:
    now = await evidence.now(connection)
    match delivery.state:
        case "parked" | "retrying":
            yield _failed(_head_of(delivery), "It", now)
        case "scheduled":
            yield Cause(
                sentence=f"It is scheduled: it is not due before {said(delivery.due_at)}.",
                remedy=f"wait; or give it up: outbox skip {delivery.id}",
                since=delivery.created_at,
                until=delivery.due_at,
            )
    if chain := await evidence.heads(connection, delivery):
        yield _held(chain, now)


def _head_of(delivery: DeliveryState) -> Head:
    return Head(delivery.id, delivery.due_at, delivery.parked_at, delivery.attempts, delivery.last_error)


def _failed(head: Head, who: str, now: datetime) -> Cause:
    attempts = f"after {head.attempts} failed attempt{'s' if head.attempts != 1 else ''}"
    if head.parked_at:
        return Cause(
            sentence=f"{who} is parked since {said(head.parked_at)}, {attempts}: {head.error}.",
            remedy=f"mend that, then: outbox retry {head.id}; or give it up: outbox skip {head.id}",
            since=head.parked_at,
        )
    if head.due_at is None or head.due_at <= now:
        return Cause(
            sentence=f"{who} is due again since {said(head.due_at)}, {attempts}: {head.error}.",
            remedy=f"wait for its turn; or give it up: outbox skip {head.id}",
            since=head.due_at,
            until=now,
        )
    return Cause(
        sentence=f"{who} backs off until {said(head.due_at)}, {attempts}: {head.error}.",
        remedy=f"wait; or try it now: outbox retry {head.id}",
        until=head.due_at,
    )


def _held(chain: Sequence[Head], now: datetime) -> Cause:
    first = chain[0]
    failed = _failed(first, "which", now)
    told = [_failed(head, f"delivery {head.id}", now).sentence for head in chain]
    behind = f" ({len(chain)} deliveries hold its key)" if len(chain) > 1 else ""
    return Cause(
        sentence=f"It is held behind delivery {first.id}, the first of its key{behind}, {failed.sentence}",
        remedy=failed.remedy,
        since=failed.since,
        until=failed.until,
        evidence=told if len(chain) > 1 else (),
    )


async def _of_place(
    connection: AsyncConnection, sink: str, destination: str | None, delivery: DeliveryState | None
) -> AsyncIterator[Cause]:
    for pause in await pauses(connection):
        if _concerns(pause, sink, destination, delivery):
            yield _paused(pause)
    for breaker in await evidence.breakers(connection, sink):
        if destination is None or breaker.destination in (None, destination):
            yield _kept_back(sink, breaker)
    serving = await evidence.relays(connection, sink)
    if not serving:
        yield Cause(
            sentence=f"No relay at work serves {sink}.",
            remedy="outbox relay, with this sink set; or read in a relay's log what it waits for",
        )
    elif delivery:
        lane = await evidence.lane(connection, sink, delivery.lane)
        if not lane.is_owned:
            yield _unowned(sink, delivery.lane, lane, serving)


def _concerns(pause: Pause, sink: str, destination: str | None, delivery: DeliveryState | None) -> bool:
    place = pause.place
    return (
        place.sink == sink
        and (None in (place.destination, destination) or place.destination == destination)
        and (place.key is None or delivery is None or place.key == delivery.key)
    )


def _paused(pause: Pause) -> Cause:
    return Cause(
        sentence=pause.sentence,
        remedy=pause.place.resume_command,
        since=pause.since,
        until=pause.until,
    )


def _kept_back(sink: str, breaker: OpenBreaker) -> Cause:
    what = f"destination {breaker.destination}" if breaker.destination is not None else f"sink {sink}"
    return Cause(
        sentence=f"The breaker of {what} is open since {said(breaker.since)}, "
        f"relay {breaker.relay} says: {breaker.reason}.",
        remedy=f"mend that; a probe now and then finds out by itself, and relay {breaker.relay} goes on",
        since=breaker.since,
    )


def _unowned(sink: str, number: int, lane: LaneState, serving: Sequence[str]) -> Cause:
    ended = f"; the lease of {lane.relay or 'its last owner'} ended at {said(lane.lease_until)}"
    return Cause(
        sentence=f"Lane {number} of {sink} is owned by nobody{ended if lane.lease_until else ''}.",
        remedy=f"a relay takes it with its next heartbeat; else read the log of {', '.join(serving)}",
        since=lane.lease_until,
    )


def _uncommitted(id_: int, writer: Writer) -> Cause:
    return Cause(
        sentence=f"It may be one that PID {writer.pid} wrote and has not committed: its transaction is open "
        f"since {said(writer.since)}, {writer.state}.",
        remedy=f"wait; or end it: psql -c 'SELECT pg_terminate_backend({writer.pid})'",
        since=writer.since,
        evidence=[f"id {id_} was given out", f"application {writer.application}", f"query {writer.query}"],
    )


async def _of_progress(connection: AsyncConnection, delivery: DeliveryState) -> AsyncIterator[Cause]:
    """Tells of what nothing keeps back: it has its turn soon, or its relay does nothing."""
    now = await evidence.now(connection)
    due = max(delivery.first_due_at, delivery.due_at or delivery.first_due_at)
    if now - due < _AT_WORK:
        return
    lane = await evidence.lane(connection, delivery.sink, delivery.lane)
    last = await evidence.last_delivered(connection, delivery.sink)
    lease = f"its lease lasts until {said(lane.lease_until)}"
    owned = f"lane {delivery.lane} is owned by relay {lane.relay}, {lease}"
    if last and now - last < _AT_WORK:
        yield Cause(
            sentence=f"It waits for its turn: relay {lane.relay} is at work, and something of the sink was "
            f"done at {said(last)}.",
            remedy="wait; see what is before it: outbox status",
            since=due,
            until=now,
            evidence=[owned],
        )
        return
    so_far = (
        f"nothing of {delivery.sink} since {said(last)}" if last else f"nothing of {delivery.sink} lately"
    )
    yield Cause(
        sentence=f"Relay {lane.relay} lives and owns its lane, but delivered {so_far}.",
        remedy=f"read the log and /readyz of relay {lane.relay}; restart it",
        since=due,
        evidence=[owned, f"it is due since {said(due)}"],
    )
