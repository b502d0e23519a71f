"""Where the database is, and what is between it and us: a standby, a pooler, another clock, odd defaults."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from outbox.database import Session, dial
from outbox.finding import Finding, Severity, skew
from outbox.operate.doctor.patient import Patient
from outbox.settings import Settings

_TIMES = 3
_SECOND_SECONDS = 3.0

# Of what a role or a database sets for its sessions: for this database or all, for one role or all.
_DEFAULTS = """
    WITH home AS (
        SELECT nspname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = CAST('{schema}outbox' AS regclass)
    )
    SELECT coalesce(r.rolname, '') AS role, coalesce(d.datname, '') AS database,
           split_part(set, '=', 1) AS name,
           substr(set, strpos(set, '=') + 1) AS value, home.name AS home
    FROM pg_db_role_setting s
    LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
    CROSS JOIN unnest(s.setconfig) AS set
    CROSS JOIN home
    WHERE (s.setdatabase = 0 OR d.datname = current_database())
      AND (s.setrole = 0 OR r.oid IN (
          SELECT relowner FROM pg_class WHERE oid = CAST('{schema}outbox' AS regclass)
          UNION ALL SELECT grantee FROM pg_class, aclexplode(relacl)
          WHERE oid IN (CAST('{schema}outbox' AS regclass), CAST('{schema}outbox_inbox' AS regclass))
          UNION ALL SELECT grantee FROM pg_attribute, aclexplode(attacl)
          WHERE attrelid = CAST('{schema}outbox' AS regclass)))
    UNION ALL
    SELECT '', '', name, setting, '' FROM pg_settings
    WHERE source IN ('configuration file', 'command line', 'environment variable')
    ORDER BY 1, 2, 3
"""


async def is_pooled(settings: Settings) -> bool:
    """Returns True if two connections share a server process in turn: a pooler in transaction mode is there.

    Raises what `dial` does where no connection is to be had.
    """
    async with AsyncExitStack() as stack:
        first = await _connected(stack, settings)
        try:
            async with asyncio.timeout(_SECOND_SECONDS):
                second = await _connected(stack, settings)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False  # Not told apart by one; it is enough to go on with.
        seen = [[await _process(each) for each in (first, second)] for _ in range(_TIMES)]
        ours, others = ({pids[which] for pids in seen} for which in (0, 1))
        return bool(ours & others) or len(ours) > 1 or len(others) > 1


async def _connected(stack: AsyncExitStack, settings: Settings) -> asyncpg.Connection:
    # As one behind a pooler, which any server bears.
    connection = await dial(settings.address, Session("outbox", pooled=True))
    stack.callback(connection.terminate)
    return connection


async def _process(connection: asyncpg.Connection) -> int:
    async with connection.transaction():
        pid: int = await connection.fetchval("SELECT pg_backend_pid()")
        return pid


def pooled() -> Finding:
    """Says that a pooler is there and the settings do not know it."""
    return Finding(
        "error",
        "A pooler in transaction mode is before the database, and OUTBOX_DATABASE_POOLER does not say so: "
        "statements that were prepared are gone, and settings of a session become another's.",
        "OUTBOX_DATABASE_POOLER=transaction, for relays and commands",
    )


async def database(patient: Patient) -> list[Finding]:
    """Looks whether the server takes writes."""
    ((is_standby,),) = await patient.ask("SELECT pg_is_in_recovery()")
    if not is_standby:
        return []
    sentence = "The database is a standby, and takes no writes: no relay works here."
    return [
        Finding(
            "error", sentence, "name the primary in OUTBOX_DATABASE_URL, or target_session_attrs=read-write"
        )
    ]


def unreachable(error: Exception) -> Finding:
    """Says why the database is not reached."""
    return Finding("error", str(error), "mend that: nothing in the database was looked at")


async def clock(patient: Patient) -> list[Finding]:
    """Compares this host's clock with the database's."""
    found = min([await _read_clocks(patient) for _ in range(_TIMES)], key=lambda each: each[1])
    return list(skew("the database", *found))


async def _read_clocks(patient: Patient) -> tuple[float, float]:
    """Returns how far the other clock is ahead, and how far that may be wrong, in seconds."""
    before = patient.clock()
    ((time,),) = await patient.ask("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)")
    after = patient.clock()
    return time - (before + after) / 2, abs(after - before) / 2


async def defaults(patient: Patient) -> list[Finding]:
    """Looks at what roles, the database and the server set for sessions that would hurt."""
    told = (_hurts(row, patient.settings) for row in await patient.ask(_DEFAULTS))
    return [finding for finding in told if finding]


def _hurts(row: Any, settings: Settings) -> Finding | None:
    severity: Severity = "warning"
    why = None
    match row.name.lower(), row.value.lower():
        case "session_replication_role", "replica":
            severity, why = (
                "error",
                "triggers do not fire: what is written is not queued, and nobody sends it",
            )
        case "default_transaction_read_only", ("on" | "true" | "yes" | "1") if row.role or row.database:
            why = "services cannot write messages"
        case "synchronous_commit", "off":
            why = "what a service was told is committed may be lost when the server crashes"
        case "search_path", path if settings.database_schema is None and row.home not in path:
            why = f"the outbox's tables are in {row.home}; OUTBOX_DATABASE_SCHEMA would say so"
    if why is None:
        return None
    return Finding(severity, f"{_where(row)} sets {row.name} = {row.value}: {why}.", _reset(row))


def _where(row: Any) -> str:
    what = (("Role", row.role), ("Database", row.database))
    told = " in ".join(f"{kind} {name}" for kind, name in what if name)
    return told or "The server"


def _reset(row: Any) -> str:
    role, database = f'ROLE "{row.role}"', f'DATABASE "{row.database}"'
    if row.role:
        return f"ALTER {role}{f' IN {database}' if row.database else ''} RESET {row.name}"
    return f"ALTER {database} RESET {row.name}" if row.database else f"ALTER SYSTEM RESET {row.name}"
