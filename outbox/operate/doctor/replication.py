"""Standbys that commits wait for, and replication slots that keep log and dead rows."""

from __future__ import annotations

from typing import Any

from outbox.finding import Finding
from outbox.operate.doctor.patient import Patient

# What a standby does is shown to some roles only; that it is there, to all.
_STANDBYS = """
    SELECT current_setting('synchronous_standby_names') AS names,
           (SELECT count(*) FROM pg_stat_replication) AS connected,
           (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')) AS synchronous,
           (SELECT count(*) FROM pg_stat_replication WHERE sync_state IS NULL) AS hidden,
           current_setting('synchronous_commit') AS commit
"""
_SLOTS = """
    SELECT slot_name, slot_type, wal_status,
           pg_size_pretty(CASE WHEN NOT pg_is_in_recovery()
                          THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END) AS kept,
           greatest(age(xmin), age(catalog_xmin)) AS age
    FROM pg_replication_slots
    WHERE NOT active AND (restart_lsn IS NOT NULL OR xmin IS NOT NULL OR catalog_xmin IS NOT NULL
                          OR wal_status = 'lost')
    ORDER BY 1 LIMIT 20
"""


async def replication(patient: Patient) -> list[Finding]:
    """Looks for a synchronous standby that is missing, and for slots that nobody reads."""
    ((found),) = await patient.ask(_STANDBYS)
    return [*_of_standbys(found), *(_of_slot(row) for row in await patient.ask(_SLOTS))]


def _of_standbys(found: Any) -> list[Finding]:
    if not found.names or found.synchronous or found.commit in ("off", "local"):
        return []
    if found.hidden:
        return [
            Finding(
                "unknown",
                "This role may not see whether the synchronous standby follows.",
                "an administrator may: GRANT pg_read_all_stats to it",
            )
        ]
    return [
        Finding(
            "error",
            f"synchronous_standby_names = {found.names}, and none of the {found.connected} standbys at work "
            "is one: every commit waits, of services and of relays.",
            "bring it back; or: ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()",
        )
    ]


def _of_slot(row: Any) -> Finding:
    kept = f"keeps {row.kept} of the write-ahead log" if row.kept else "is of no use any more"
    rows = f", and dead rows of the last {row.age} transactions" if row.age else ""
    return Finding(
        "warning",
        f"Nobody reads the {row.slot_type} replication slot {row.slot_name}, which {kept}{rows}.",
        f"start its reader; or: SELECT pg_drop_replication_slot('{row.slot_name}')",
    )
