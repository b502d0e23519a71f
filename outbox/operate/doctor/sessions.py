"""Who holds an old snapshot or an open transaction: dead rows stay meanwhile, and floors wait for writers."""

from __future__ import annotations

import re
from typing import Any

from outbox.finding import Finding
from outbox.operate.doctor.patient import Patient
from outbox.operate.pauses import said

_QUERY = 200
"""So much of a query is told."""

# Readers of another database hold nothing here; writers hold the floors of all.
_OPEN = """
    SELECT a.pid, a.usename, a.datname, a.application_name, a.state, a.query, a.xact_start AS since,
           a.backend_xid IS NOT NULL AS writes
    FROM pg_stat_activity a
    WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
      AND a.xact_start < clock_timestamp() - $1::double precision * interval '1 second'
      AND (a.backend_xid IS NOT NULL OR a.datname = current_database())
    ORDER BY a.xact_start LIMIT 10
"""
_PREPARED = """
    SELECT gid, owner, database, prepared AS since
    FROM pg_prepared_xacts
    WHERE prepared < clock_timestamp() - $1::double precision * interval '1 second'
    ORDER BY prepared LIMIT 10
"""
_HIDDEN = """
    SELECT current_user AS role
    WHERE NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
      AND EXISTS (SELECT FROM pg_stat_activity
                  WHERE backend_type IS NULL AND usename <> current_user AND pid <> pg_backend_pid())
"""


async def sessions(patient: Patient) -> list[Finding]:
    """Looks for transactions that are open for long, and prepared ones that nobody ends."""
    found = [_open(row) for row in await patient.ask(_OPEN, patient.long_seconds)]
    found += [_prepared(row) for row in await patient.ask(_PREPARED, patient.long_seconds)]
    return [*found, *(_hidden(row.role) for row in await patient.ask(_HIDDEN))]


def _open(row: Any) -> Finding:
    held = "relays' floors wait for it, and dead rows stay" if row.writes else "dead rows stay while it lasts"
    who = f"{row.application_name or 'no name'}, role {row.usename}, database {row.datname}"
    return Finding(
        "warning",
        f"PID {row.pid} ({who}) has a transaction open since {said(row.since)}, {row.state}: {held}. "
        f"Its query: {shape(row.query)}",
        f"end it: psql -c 'SELECT pg_terminate_backend({row.pid})'",
    )


def _prepared(row: Any) -> Finding:
    return Finding(
        "warning",
        f"The prepared transaction {row.gid} (role {row.owner}, database {row.database}) is open since "
        f"{said(row.since)}: relays' floors wait for it, and dead rows stay.",
        f"its coordinator ends it; or in {row.database}: ROLLBACK PREPARED '{row.gid}'",
    )


def _hidden(role: str) -> Finding:
    return Finding(
        "unknown",
        f"Role {role} may not see what other roles' sessions do.",
        f'an administrator may: GRANT pg_read_all_stats TO "{role}"',
    )


_LITERALS = re.compile(r"\$(\w*)\$.*?(?:\$\1\$|$)|'(?:[^'\\]|''|\\.)*(?:'|$)", re.DOTALL)


def shape(query: str | None) -> str:
    """Returns a query in one line of bounded length, without what stands in it between quotes."""
    said = " ".join(_LITERALS.sub("'…'", query or "").split())
    return said if len(said) <= _QUERY else f"{said[:_QUERY]}…"
