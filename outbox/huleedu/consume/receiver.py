"""Records from Kafka, a set in one transaction: each event is applied once, or parked with the reason.

A set that fails is tried by halves, so that one event at fault parks alone and the others are applied. The
inbox does not know what is parked: written to its topic once more, it is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import structlog
from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from outbox import unseen
from outbox.huleedu.consume import parked
from outbox.huleedu.consume.incoming import Incoming, about
from outbox.huleedu.consume.metrics import ConsumerMetrics
from outbox.huleedu.consume.reader import Unreadable
from outbox.huleedu.consume.refusal import Refusal, refusal, take_turns
from outbox.huleedu.database import DATABASE_ERRORS
from outbox.huleedu.errors import Unacceptable
from outbox.huleedu.events import envelope_of
from outbox.huleedu.events.envelope import Data

_log = structlog.get_logger(__name__)

_TURNS = 5
"""So often a transaction that another one is in the way of is tried again at once."""
_TURN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Effect:
    """What became of an event."""

    outcome: str
    """In a word, for the metrics."""
    committed: Callable[[Mapping[str, str]], None] | None = None
    """Tells of it, once it is committed; is given what names the event in a line of the log."""


_REPEATED = Effect("repeated")
_PARKED = Effect("parked")


@dataclass(frozen=True, slots=True)
class Handler(Generic[Data]):
    """What a service does with the events of one topic."""

    topic: str
    data: type[Data]
    apply: Callable[[AsyncConnection, Sequence[Incoming[Data]]], Awaitable[Sequence[Effect]]]
    """Works in the caller's transaction on events in the order of their offsets, none of which was applied
    before; returns what became of each. What it raises undoes all of them."""


@dataclass(frozen=True, slots=True)
class _Input:
    """A record, and the event in it or what is wrong with it."""

    record: ConsumerRecord
    incoming: Incoming[Any] | None = None
    refused: Refusal | None = None


Also = Callable[[AsyncConnection], Awaitable[None]]
"""What else a transaction does."""


async def _nothing(_: AsyncConnection) -> None:
    """Does no more."""


class Receiver:
    """Applies records for one consumer, whose name is what the inbox knows it by."""

    def __init__(
        self, engine: AsyncEngine, consumer: str, handlers: Sequence[Handler[Any]], metrics: ConsumerMetrics
    ) -> None:
        self.topics = tuple(handler.topic for handler in handlers)
        self.consumer = consumer
        self._engine = engine
        self._handlers = {handler.topic: handler for handler in handlers}
        self._envelopes = {handler.topic: envelope_of(handler.data) for handler in handlers}
        self._metrics = metrics

    async def receive(
        self, *records: ConsumerRecord, done: Callable[[ConsumerRecord], None] = lambda _: None
    ) -> float:
        """Applies records of one partition, drops what was applied before, parks what can never be.

        Returns how many seconds their transactions took. Raises what a retry might heal. `done` is told the
        last record that is done with, again and again.
        """
        return await self._apply([self._read(record) for record in records], done)

    async def retry(self, record: ConsumerRecord, also: Also) -> Refusal | None:
        """Applies a record that was parked, and does something else in that transaction.

        Returns why it still cannot be applied; nothing was done then. Raises what a retry might heal.
        """
        if record.topic not in self._handlers:
            return Refusal("refused", "this consumer does not read the topic")
        read = self._read(record)
        if read.refused:
            return read.refused
        try:
            effects = await self._at_once([read], also)
        except Exception as error:
            if refused := refusal(error):
                return refused
            raise
        self._tell([read], effects)
        return None

    async def _apply(self, inputs: Sequence[_Input], done: Callable[[ConsumerRecord], None]) -> float:
        began = time.monotonic()
        try:
            effects = await self._at_once(inputs)
        except Exception as error:
            refused = refusal(error)
            if len(inputs) > 1 and (refused or not isinstance(error, DATABASE_ERRORS)):
                middle = len(inputs) // 2
                first = await self._apply(inputs[:middle], done)
                return first + await self._apply(inputs[middle:], done)
            if not refused:
                raise
            inputs = [_Input(inputs[0].record, refused=refused)]
            effects = await self._at_once(inputs)
        seconds = time.monotonic() - began
        self._measure(inputs, effects, seconds)
        self._tell(inputs, effects)
        done(inputs[-1].record)
        return seconds

    async def _at_once(self, inputs: Sequence[_Input], also: Also = _nothing) -> Sequence[Effect]:
        """Applies and parks in one transaction; tries again where only another one was in its way."""
        for turn in range(_TURNS):
            try:
                async with self._engine.begin() as connection:
                    effects = await self._within(connection, inputs)
                    await also(connection)
            except DATABASE_ERRORS as error:
                if not take_turns(error) or turn == _TURNS - 1:
                    raise
                await asyncio.sleep(random.uniform(0, _TURN_SECONDS))  # noqa: S311
            else:
                return effects
        raise AssertionError("unreachable")

    async def _within(self, connection: AsyncConnection, inputs: Sequence[_Input]) -> Sequence[Effect]:
        # Several with one id are one event; the first counts.
        events = {each.incoming.event.event_id: each.incoming for each in reversed(inputs) if each.incoming}
        first = await unseen(connection, self.consumer, events.keys()) if events else set()
        new = [each.incoming for each in inputs if each.incoming and _is_first(each.incoming, events, first)]
        effects = iter(await self._handlers[new[0].record.topic].apply(connection, new) if new else ())
        refused = [(each.record, each.refused) for each in inputs if each.refused]
        if refused:
            await parked.park(connection, self.consumer, refused)
        return [
            _PARKED
            if each.incoming is None
            else (next(effects) if _is_first(each.incoming, events, first) else _REPEATED)
            for each in inputs
        ]

    def _read(self, record: ConsumerRecord) -> _Input:
        if isinstance(record, Unreadable):
            return _Input(record, refused=Refusal("unreadable", record.reason))
        try:
            if record.value is None:
                raise Unacceptable("there is no value")  # noqa: TRY301 (told like whatever else is wrong)
            event = self._envelopes[record.topic].model_validate_json(record.value)
        except Exception as error:
            if refused := refusal(error):
                return _Input(record, refused=refused)
            raise
        return _Input(record, Incoming(event, record))

    def _measure(self, inputs: Sequence[_Input], effects: Sequence[Effect], seconds: float) -> None:
        topic, now = inputs[0].record.topic, time.time()
        for outcome, events in Counter(effect.outcome for effect in effects).items():
            self._metrics.events.labels(topic, outcome).inc(events)
        self._metrics.seconds.labels(topic).observe(seconds)
        self._metrics.sizes.labels(topic).observe(len(inputs))
        observe = self._metrics.age.labels(topic).observe
        for each in inputs:
            observe(max(0.0, now - each.record.timestamp / 1_000))

    def _tell(self, inputs: Sequence[_Input], effects: Sequence[Effect]) -> None:
        """Logs what is committed: a line for the set, what was published, and what is parked."""
        last = inputs[-1].record
        outcomes = Counter(effect.outcome for effect in effects)
        _log.info("events.applied", first=inputs[0].record.offset, **about(last), **outcomes)
        debugging = _log.bind().is_enabled_for(logging.DEBUG)
        for each, effect in zip(inputs, effects, strict=True):
            if each.refused:
                _log.error(
                    "event.parked", reason=each.refused.reason, kind=each.refused.kind, **about(each.record)
                )
            elif each.incoming and (effect.committed or debugging):
                _tell_of(each.incoming, effect, debugging=debugging)


def _tell_of(incoming: Incoming[Any], effect: Effect, *, debugging: bool) -> None:
    names = incoming.names()
    if debugging:
        _log.debug("event.applied", outcome=effect.outcome, **about(incoming.record), **names)
    if effect.committed:
        effect.committed(names)


def _is_first(incoming: Incoming[Any], events: Mapping[Any, Incoming[Any]], first: set[Any]) -> bool:
    event_id = incoming.event.event_id
    return event_id in first and events[event_id] is incoming
