"""Runs all checks, each over a connection of its own and within its time: one that fails is a finding."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.errors import OperatorError, OutboxError, SchemaError, describe, unwrapped
from outbox.finding import Finding
from outbox.operate.connection import connect, explained
from outbox.operate.doctor import place, relays, replication, rights, rows, schema, sessions, upkeep
from outbox.operate.doctor.destinations import destinations
from outbox.operate.doctor.patient import Patient
from outbox.settings import Settings

Clock = Callable[[], float]
Check = Callable[[Patient], Awaitable[Sequence[Finding]]]
CheckSink = Callable[[str, Settings, Sequence[str], Clock], Awaitable[Sequence[Finding]]]
"""Examines the sink of a name, as these settings have it, for these destinations; by this host's clock."""

CHECKS: Mapping[str, Check] = {
    "database": place.database,
    "schema": schema.schema,
    "ids": upkeep.ids,
    "vacuum": upkeep.vacuum,
    "wraparound": upkeep.wraparound,
    "sessions": sessions.sessions,
    "replication": replication.replication,
    "clock": place.clock,
    "defaults": place.defaults,
    "grants": rights.grants,
    "row-security": rights.row_security,
    "relays": relays.relays,
    "lanes": relays.lanes,
    "sinks": relays.sinks,
    "repair": rows.repair,
}
"""The checks of the database, by their names."""

_POOLER = "pooler"
_CONNECT_SECONDS = 15.0
_SECONDS = 10.0
_LONGER = {"repair": 60.0, "lanes": 30.0}
_SINK_SECONDS = 20.0
_SEE_SESSIONS = "see what holds it: outbox doctor --only sessions; then run it again"
_SEE_NETWORK = "see whether its server answers from here; then run it again"
_SEVERITIES = ("error", "warning", "unknown")


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, the worst first, and what was looked at."""

    findings: Sequence[Finding]
    checked: Sequence[str]

    @property
    def has_errors(self) -> bool:
        """True if somebody must do something now."""
        return any(finding.severity == "error" for finding in self.findings)


def checks(settings: Settings) -> tuple[str, ...]:
    """Returns the names of all checks: those of the database, then those of the sinks that are set."""
    return tuple(dict.fromkeys((_POOLER, *CHECKS, *settings.sink_names)))


async def examine(
    settings: Settings,
    check_sink: CheckSink,
    *,
    only: Collection[str] = (),
    clock: Clock = time.time,
    long_seconds: float = 60.0,
) -> Report:
    """Runs all checks, or only those of these names; what hinders a check becomes a finding.

    A transaction that is open for more than `long_seconds` is told of. Raises `SettingsError` where no
    database is set.
    """
    wanted = [name for name in checks(settings) if not only or name in only]
    sinks = [name for name in settings.sink_names if name in wanted]
    used: dict[str, Sequence[str]] = {}
    found, reached = await _reach(settings)
    if reached:
        database = _Database(reached, lambda connection: Patient(connection, settings, clock, long_seconds))
        for name in wanted:
            if name in CHECKS:
                found += await database.ask(name, CHECKS[name])
        if sinks:
            found += await database.ask("destinations", partial(_see_destinations, used))
    examined = [
        _bounded(name, check_sink(name, settings, used.get(name, ()), clock), _SINK_SECONDS, _SEE_NETWORK)
        for name in sinks
    ]
    for each in await asyncio.gather(*examined):
        found += each
    told = [each for each in found if each.check != _POOLER or _POOLER in wanted]
    return Report(sorted(_once(told), key=lambda each: _SEVERITIES.index(each.severity)), wanted)


@dataclass(frozen=True, slots=True)
class _Database:
    """The database, by the settings by which it is reached."""

    settings: Settings
    patient: Callable[[AsyncConnection], Patient]

    async def ask(self, name: str, check: Check) -> list[Finding]:
        """Returns what a check finds, over a connection of its own and within its time."""
        return await _bounded(name, self._connected(check), _LONGER.get(name, _SECONDS))

    async def _connected(self, check: Check) -> Sequence[Finding]:
        async with connect(self.settings) as connection:
            return await check(self.patient(connection))


async def _see_destinations(used: dict[str, Sequence[str]], patient: Patient) -> Sequence[Finding]:
    used.update(await destinations(patient))
    return ()


async def _reach(settings: Settings) -> tuple[list[Finding], Settings | None]:
    """Connects; returns what was found in doing so, and the settings to go on with, if any."""
    try:
        with explained(settings):
            async with asyncio.timeout(_CONNECT_SECONDS):
                is_pooled = await place.is_pooled(settings)
    except (OperatorError, SchemaError) as error:
        return [replace(place.unreachable(error), check="database")], None
    if is_pooled and settings.database_pooler == "none":
        # So that the rest can be looked at.
        told = settings.model_copy(update={"database_pooler": "transaction"})
        return [replace(place.pooled(), check=_POOLER)], told
    return [], settings


async def _bounded(
    name: str, check: Awaitable[Sequence[Finding]], seconds: float, remedy: str = _SEE_SESSIONS
) -> list[Finding]:
    """Returns what a check finds, or that it failed, or took too long."""
    try:
        async with asyncio.timeout(seconds):
            found = await check
    except TimeoutError:
        found = [Finding("error", f"It was not done within {seconds:g} s.", remedy)]
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        found = [_failed(error)]
    return [replace(each, check=name) for each in found]


def _failed(error: Exception) -> Finding:
    if isinstance(error, SchemaError):
        return Finding("error", str(error), "outbox migrate")
    cause = unwrapped(error.__cause__ or error)
    if getattr(cause, "sqlstate", None) == "42501":
        remedy = "an operator's rights would do: outbox grants operator ROLE; again after each migration"
        return Finding("unknown", f"It could not be looked at: {describe(cause)}.", remedy)
    said = str(error) if isinstance(error, OutboxError) else describe(error)
    return Finding("error", f"It could not be looked at: {said}.", "mend that, then run it again")


def _once(found: Sequence[Finding]) -> list[Finding]:
    """Returns the findings without what several checks say alike."""
    return list({(each.sentence, each.remedy): each for each in reversed(found)}.values())[::-1]
