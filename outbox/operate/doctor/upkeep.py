"""What PostgreSQL does for the tables by itself, and what one day runs out: ids and transaction ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from outbox.finding import Finding
from outbox.operate.doctor.patient import Patient
from outbox.operate.pauses import said
from outbox.schema import TABLES
from outbox.schema.integrity import HIGHEST_ID

_IDS = """
    SELECT s.seqcache, s.seqincrement, s.seqcycle, least(s.seqmax, $1) AS highest, ids.last_value
    FROM pg_sequence s CROSS JOIN {schema}outbox_id_seq ids
    WHERE s.seqrelid = CAST('{schema}outbox_id_seq' AS regclass)
"""
# A table's own threshold, or the server's.
_DEAD = """
    SELECT c.relname, stat.n_dead_tup AS dead, stat.n_live_tup AS live,
           greatest(stat.last_vacuum, stat.last_autovacuum) AS vacuumed_at,
           coalesce(own.enabled, 'true') IN ('true', 'on', 'yes', '1') AS is_enabled,
           coalesce(own.threshold, base.threshold)
               + coalesce(own.scale, base.scale) * greatest(c.reltuples, 0) AS threshold
    FROM unnest($1::text[]) AS ours (name)
    JOIN pg_class c ON c.oid = to_regclass('{schema}' || ours.name)
    LEFT JOIN pg_stat_user_tables stat ON stat.relid = c.oid
    CROSS JOIN LATERAL (
        SELECT max(option_value) FILTER (WHERE option_name = 'autovacuum_enabled') AS enabled,
               max(option_value) FILTER (
                   WHERE option_name = 'autovacuum_vacuum_threshold')::float AS threshold,
               max(option_value) FILTER (
                   WHERE option_name = 'autovacuum_vacuum_scale_factor')::float AS scale
        FROM pg_options_to_table(c.reloptions)
    ) AS own
    CROSS JOIN (
        SELECT current_setting('autovacuum_vacuum_threshold')::float AS threshold,
               current_setting('autovacuum_vacuum_scale_factor')::float AS scale
    ) AS base
"""
_SWITCHES = """
    SELECT name FROM unnest(ARRAY['autovacuum', 'track_counts']) AS name WHERE current_setting(name) <> 'on'
"""
_AGES = """
    SELECT datname, age(datfrozenxid) AS xids, mxid_age(datminmxid) AS mxids FROM pg_database
"""

_TIMES_THE_THRESHOLD = 10
"""So many times as many dead rows as would call autovacuum: it does not come, or removes nothing."""
_OLD, _TOO_OLD = 1_000_000_000, 1_600_000_000
"""Ages of transaction ids: autovacuum begins at 200,000,000; the server stops writing at 2,100,000,000."""


async def ids(patient: Patient) -> list[Finding]:
    """Looks whether ids are drawn one by one, upwards, and how many are left."""
    (row,) = await patient.ask(_IDS, HIGHEST_ID)
    return list(_of_sequence(row))


def _of_sequence(row: Any) -> Iterator[Finding]:
    change = "ALTER TABLE outbox ALTER COLUMN id SET"
    if row.seqcache != 1:
        yield Finding(
            "error",
            f"Each session draws {row.seqcache} ids at once: a later message may get the lower id, and is "
            "sent first, or is passed by.",
            f"{change} CACHE 1; then services connect anew",
        )
    if row.seqincrement < 1 or row.seqcycle:
        yield Finding(
            "error",
            "Ids do not always rise: their sequence counts down, or begins anew.",
            f"{change} INCREMENT 1 SET NO CYCLE",
        )
    if row.last_value > row.highest * 0.9:
        yield Finding(
            "error",
            f"{row.highest - row.last_value} ids are left, then writing fails: {row.last_value} was the "
            "last.",
            f"{change} NO MAXVALUE; or move to an empty database",
        )


async def vacuum(patient: Patient) -> list[Finding]:
    """Looks whether autovacuum is on, and comes."""
    off = [
        Finding("error", f"The server has {row.name} = off: tables grow for ever.", _switch_on(row.name))
        for row in await patient.ask(_SWITCHES)
    ]
    tables = await patient.ask(_DEAD, list(TABLES))
    return [*off, *(finding for row in tables for finding in _of_table(row))]


def _switch_on(name: str) -> str:
    return f"ALTER SYSTEM SET {name} = on; then: SELECT pg_reload_conf()"


def _of_table(row: Any) -> Iterator[Finding]:
    if not row.is_enabled:
        yield Finding(
            "error",
            f"Autovacuum is off for {row.relname}: it grows and slows down for ever.",
            f"ALTER TABLE {row.relname} RESET (autovacuum_enabled)",
        )
    if row.dead is not None and row.dead > _TIMES_THE_THRESHOLD * row.threshold:
        last = f"the last vacuum was at {said(row.vacuumed_at)}" if row.vacuumed_at else "no vacuum yet"
        yield Finding(
            "warning",
            f"{row.relname} has {row.dead} dead rows beside {row.live} ({last}), and autovacuum should have "
            f"come at {row.threshold:.0f}: it does not, or an old snapshot keeps them.",
            f"outbox doctor --only sessions; then: VACUUM {row.relname}",
        )


async def wraparound(patient: Patient) -> list[Finding]:
    """Looks how old the oldest transaction ids of the server's databases are."""
    found = ((row, max(row.xids, row.mxids)) for row in await patient.ask(_AGES))
    return [
        Finding(
            "error" if age > _TOO_OLD else "warning",
            f"The oldest transaction id of database {row.datname} is {age} transactions old; at about "
            "2100000000 the server stops taking writes.",
            f"outbox doctor --only sessions,replication; then, in {row.datname}: VACUUM (FREEZE)",
        )
        for row, age in found
        if age > _OLD
    ]
