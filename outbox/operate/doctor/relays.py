"""Who sends: relays and what they say of themselves, the lanes that they own, sinks that nobody serves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from time import monotonic
from typing import Any

from sqlalchemy import Row

from outbox.finding import Finding
from outbox.operate.doctor.patient import Patient
from outbox.operate.pauses import said
from outbox.schema import LANES

_MOST = 10

_RELAYS = """
    SELECT name, version, sinks FROM {schema}outbox_relays
    WHERE expires_at > clock_timestamp() ORDER BY started_at
"""
_BREAKERS = """
    SELECT b.sink, b.destination, min(b.since) AS since, string_agg(r.name, ', ' ORDER BY r.name) AS relays,
           min(b.reason) AS reason
    FROM {schema}outbox_relays r
    CROSS JOIN jsonb_to_recordset(r.breakers)
        AS b (sink text, destination text, reason text, since timestamptz)
    WHERE r.expires_at > clock_timestamp() GROUP BY 1, 2 ORDER BY 3 LIMIT 10
"""
_IN_FORCE = "SELECT sink, stuck_after, on_park, gap_note FROM {schema}outbox_sinks"

# Of each sink that a living relay serves: lanes without an owner, or of one that does not live.
_UNOWNED = """
    SELECT served.sink, number AS lane, l.owner IS NOT NULL AND l.expires_at > clock_timestamp() AS is_leased,
           l.expires_at
    FROM (SELECT DISTINCT unnest(sinks) AS sink FROM {schema}outbox_relays
          WHERE expires_at > clock_timestamp()) AS served
    CROSS JOIN generate_series(0, 63) AS number
    LEFT JOIN {schema}outbox_lanes l ON l.sink = served.sink AND l.lane = number
    WHERE NOT coalesce(l.expires_at > clock_timestamp() AND EXISTS (
        SELECT FROM {schema}outbox_relays r WHERE r.relay_id = l.owner AND r.expires_at > clock_timestamp()
    ), false)
    ORDER BY 1, 2
"""
_HEARTBEATS = 3
"""A lane that changes its owner is nobody's for a moment."""
_LONGEST_SECONDS = 20.0
_LOOK_SECONDS = 0.2

_UNSERVED = """
    WITH RECURSIVE named AS (
        (SELECT sink FROM {schema}outbox_queue ORDER BY sink LIMIT 1)
        UNION ALL
        SELECT following.* FROM named CROSS JOIN LATERAL (
            SELECT q.sink FROM {schema}outbox_queue q WHERE q.sink > named.sink ORDER BY q.sink LIMIT 1
        ) AS following
    )
    SELECT sink FROM (SELECT sink FROM named LIMIT 1000) AS named
    WHERE NOT EXISTS (SELECT FROM {schema}outbox_relays r
                      WHERE r.expires_at > clock_timestamp() AND named.sink = ANY (r.sinks))
"""


async def relays(patient: Patient) -> list[Finding]:
    """Looks at the living relays: that there are some, of one version, with nothing kept back."""
    living = await patient.ask(_RELAYS)
    found = [*_of_living(living), *_of_settings(patient, await patient.ask(_IN_FORCE))]
    return [*found, *(_of_breaker(row) for row in await patient.ask(_BREAKERS))]


def _of_living(living: list[Row[Any]]) -> Iterator[Finding]:
    if not living:
        remedy = "outbox relay; or read in a relay's log what it waits for"
        yield Finding("warning", "No relay is at work.", remedy)
    versions = sorted({row.version for row in living})
    if len(versions) > 1:
        yield Finding(
            "warning",
            f"Relays of different versions are at work: {', '.join(versions)}.",
            "end the roll-out: outbox status tells which is which",
        )


def _of_settings(patient: Patient, in_force: list[Row[Any]]) -> Iterator[Finding]:
    """Tells where the settings here are not those in force, for sinks that are set here."""
    for row in in_force:
        if row.sink not in patient.settings.sink_names:
            continue
        own = patient.settings.sink(row.sink)
        here = {
            "stuck_after": timedelta(seconds=own.stuck_after_seconds),
            "on_park": own.on_park,
            "gap_note": own.gap_note,
        }
        for name, value in here.items():
            if getattr(row, name) != value:
                variable = {"stuck_after": "STUCK_AFTER_SECONDS"}.get(name, name.upper())
                yield Finding(
                    "warning",
                    f"{row.sink}: {variable} is {value} here, and {getattr(row, name)} is in force.",
                    f"give all relays, and this command, the same OUTBOX_{variable}; that of the relay that "
                    "started last is in force",
                )


def _of_breaker(row: Any) -> Finding:
    what = (
        f"destination {row.destination} of {row.sink}" if row.destination is not None else f"sink {row.sink}"
    )
    return Finding(
        "error",
        f"The breaker of {what} is open since {said(row.since)} in {row.relays}: {row.reason}.",
        f"mend that: relays probe it now and then, and go on by themselves; outbox explain {row.sink}",
    )


async def lanes(patient: Patient) -> list[Finding]:
    """Looks for lanes that nobody owns, or a relay that does not live, for longer than a hand-over takes."""
    end = monotonic() + min(_LONGEST_SECONDS, _HEARTBEATS * patient.settings.heartbeat_seconds)
    while (unowned := await patient.ask(_UNOWNED)) and monotonic() < end:
        await patient.connection.rollback()  # Another snapshot.
        await asyncio.sleep(_LOOK_SECONDS)
    sinks = {row.sink: [other for other in unowned if other.sink == row.sink] for row in unowned}
    return [_of_lanes(sink, rows) for sink, rows in sinks.items()]


def _of_lanes(sink: str, rows: list[Row[Any]]) -> Finding:
    numbers = ", ".join(str(row.lane) for row in rows[:_MOST]) + (", …" if len(rows) > _MOST else "")
    leased = [row.expires_at for row in rows if row.is_leased]
    until = f"; a dead relay's lease on some lasts until {said(max(leased))}" if leased else ""
    return Finding(
        "error",
        f"No living relay owns {len(rows)} of {LANES} lanes of {sink} ({numbers}){until}: nothing in them "
        "is sent.",
        "a relay takes them with a heartbeat once they are free; else read the relays' logs",
    )


async def sinks(patient: Patient) -> list[Finding]:
    """Looks for sinks for which something waits, and which no living relay serves."""
    return [
        Finding(
            "error",
            f"Deliveries wait for sink {row.sink}, and no living relay serves it.",
            f"start a relay that has it set; or see what it is: outbox list --sink {row.sink}",
        )
        for row in (await patient.ask(_UNSERVED))[:_MOST]
    ]
