"""The independent check: what was committed against what arrived, and what became of the rest.

Consumers of our own say what arrived. Of what did not, the outbox says why: it expired, nobody listened to
its channel, it still waits. What it calls delivered and no consumer saw is lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import quantiles
from typing import Literal
from uuid import UUID

from outbox.demo.ledger import Ledger
from outbox.errors import OutboxError
from outbox.operate import DeliveryState, Selection, connect, show
from outbox.settings import Settings

Fate = Literal["lost", "parked", "pending", "expired", "unheard", "skipped", "uncommitted"]

_TOLD: Mapping[Fate, str] = {
    "lost": "LOST",
    "parked": "parked",
    "pending": "still in the outbox",
    "expired": "expired before they could be sent",
    "unheard": "published while nobody was subscribed",
    "skipped": "skipped by an operator",
    "uncommitted": "never committed",
}
_KEYS = {"kafka": "batches", "redis": "users"}
_AT_ONCE = 500
_LOOK_SECONDS = 0.05
_ASK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one sink."""

    text: str
    well: bool
    """Whether every promise was kept."""


async def drain(settings: Settings, ledgers: Iterable[Ledger], patience: float) -> None:
    """Waits until everything has arrived, or nothing more will; at most `patience` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            for ledger in ledgers:
                while ledger.waiting and await _more_comes(settings, ledger):
                    pass


async def _more_comes(settings: Settings, ledger: Ledger) -> bool:
    """Returns True if some of what is missing is still to be sent; what was sent before is seen meanwhile."""
    missing = list(ledger.missing)[:_AT_ONCE]
    try:
        pending = (await _fates(settings, ledger.sink, missing))["pending"] > 0
    except OutboxError:
        pending = True
    with suppress(TimeoutError):
        async with asyncio.timeout(_ASK_SECONDS):
            while ledger.waiting:  # noqa: ASYNC110 - a plain book, which tells nobody of its changes
                await asyncio.sleep(_LOOK_SECONDS)
    return pending


async def check(settings: Settings, ledger: Ledger, *, unsure: Collection[UUID], in_full: bool) -> Finding:
    """Judges one sink. What is pending is a fault only if there was time for everything (`in_full`).

    `unsure` are messages of which the writer does not know whether they were committed.
    """
    try:
        fates = await _fates(settings, ledger.sink, list(ledger.missing), unsure)
    except OutboxError as error:
        why = f"{ledger.waiting:,} have not arrived, and the outbox does not tell why: {error}"
        return Finding("; ".join([*_arrivals(ledger), why]), well=not in_full)
    fates["expired"] += ledger.expired
    faults = ledger.disordered + ledger.phantoms + fates["lost"] + fates["parked"]
    if in_full:
        faults += fates["pending"]
    rest = [f"{count:,} {_TOLD[fate]}" for fate, count in fates.items() if count]
    return Finding("; ".join([*_arrivals(ledger), *rest]), well=not faults)


async def _fates(
    settings: Settings, sink: str, missing: list[UUID], unsure: Collection[UUID] = ()
) -> Counter[Fate]:
    """Returns how many of the missing messages had which fate, by what the outbox says."""
    fates: Counter[Fate] = Counter()
    if missing:
        async with connect(settings) as connection:
            for start in range(0, len(missing), _AT_ONCE):
                some = missing[start : start + _AT_ONCE]
                rows = await show(connection, Selection(message_ids=some, sink=sink))
                found = {row.delivery.message_id: row.delivery for row in rows}
                fates.update(_fate(found.get(each), sure=each not in unsure) for each in some)
    return fates


def _fate(delivery: DeliveryState | None, *, sure: bool) -> Fate:
    match delivery:
        case None:
            return "lost" if sure else "uncommitted"
        case DeliveryState(state="delivered", receivers=0):
            return "unheard"
        case DeliveryState(state="delivered"):
            return "lost"
        case DeliveryState(state="parked" | "expired" | "skipped" as state):
            return state
        case _:
            return "pending"


def _arrivals(ledger: Ledger) -> Iterator[str]:
    yield f"{ledger.arrived:,} of {ledger.written:,} arrived"
    if ledger.disordered:
        yield f"{ledger.disordered:,} OUT OF ORDER"
    else:
        yield f"in order for each of {ledger.keys:,} {_KEYS[ledger.sink]}"
    if ledger.phantoms:
        yield f"{ledger.phantoms:,} THOUGH ROLLED BACK"
    if ledger.repeated:
        yield f"{ledger.repeated:,} came twice, because it was not certain that they had arrived"
    else:
        yield "none twice"
    if len(ledger.lags) > 1:
        percentiles = quantiles(ledger.lags, n=100)
        yield f"half within {_duration(percentiles[49])}, 99 % within {_duration(percentiles[98])}"


def _duration(seconds: float) -> str:
    return f"{1_000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
