"""Which rights on the outbox's tables each part needs, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from outbox.schema.limits import TABLES, VERSION_TABLE

Part = Literal["writer", "relay", "operator", "reader", "consumer"]

PARTS: tuple[Part, ...] = get_args(Part)

# No `id`, so that nobody takes one that a relay has passed already; `created_at` is the database's.
_WRITTEN = "message_id, type, sink, destination, key, payload, headers, available_at, expires_at"

# Notes of what was given up, and what is sent again.
_WRITING_AGAIN = "INSERT (message_id, type, sink, destination, key, payload, headers, replay_id)"

# How far an operation is. Asking for one is for the functions alone.
_CARRYING_OUT = "UPDATE (sink, reached, ids, rows, left_out, busy, uncertain, next_at, trouble, ended_at)"

FUNCTIONS: Mapping[Part, tuple[str, ...]] = {
    # By which it is told what stands where its row was not taken. PUBLIC may ask too, unless the owner takes
    # that away.
    "writer": ("outbox_written_alike(uuid, text, text, text, text, bytea)",),
    "operator": (
        "outbox_ask(text, jsonb, jsonb, bigint, bigint[], bigint, jsonb, text, text, text)",
        "outbox_cancel(bigint, text, text, text)",
        "outbox_record(text, jsonb, jsonb, jsonb, text, text, text)",
    ),
}
"""Part → the functions that it calls."""

# Everything but payloads and headers.
_READ = {
    "outbox_state": "SELECT",
    "outbox_queue": "SELECT",
    "outbox_lanes": "SELECT",
    "outbox_relays": "SELECT",
    "outbox_sinks": "SELECT",
    # What tells whether the tables fit together, and when a message was committed (`xmin`).
    "outbox": "SELECT (id, sink, lane, created_at, xmin)",
    "outbox_receipts": "SELECT (id, settled_at)",
    "outbox_id_seq": "SELECT",
    "outbox_amiss": "SELECT",
    "outbox_pauses": "SELECT",
    "outbox_operations": "SELECT",
    "outbox_acts": "SELECT",
    VERSION_TABLE: "SELECT",
}

RIGHTS: Mapping[Part, Mapping[str, str]] = {
    "writer": {"outbox": f"INSERT ({_WRITTEN})"},
    "relay": {
        **_READ,
        "outbox": f"SELECT, DELETE, {_WRITING_AGAIN}",
        "outbox_id_seq": "SELECT",
        "outbox_queue": "SELECT, UPDATE, DELETE",
        "outbox_receipts": "SELECT, INSERT, DELETE",
        "outbox_lanes": "SELECT, INSERT, UPDATE, DELETE",
        "outbox_relays": "SELECT, INSERT, UPDATE, DELETE",
        "outbox_sinks": "SELECT, INSERT, UPDATE, DELETE",
        "outbox_walks": "SELECT, INSERT, UPDATE",
        "outbox_amiss": "SELECT, INSERT, DELETE",
        "outbox_operations": f"SELECT, {_CARRYING_OUT}",
    },
    "operator": {
        **_READ,
        "outbox": f"SELECT, {_WRITING_AGAIN}",
        "outbox_id_seq": "SELECT, UPDATE",
        "outbox_queue": "SELECT, INSERT, UPDATE, DELETE",
        "outbox_receipts": "SELECT, INSERT, DELETE",
        "outbox_lanes": "SELECT, UPDATE",
        "outbox_sinks": "SELECT, UPDATE",
        "outbox_amiss": "SELECT, DELETE",
        "outbox_operations": f"SELECT, {_CARRYING_OUT}",
        "outbox_pauses": "SELECT, INSERT (sink, destination, key, until, reason, paused_by), DELETE",
    },
    "reader": _READ,
    "consumer": {"outbox_inbox": "SELECT, INSERT, DELETE"},
}
"""Part → table → rights. Migrations are for the tables' owner.

To tell which session of another role holds the floors back, a relay also needs `pg_read_all_stats`,
which only an administrator can grant.
"""


def grants(part: Part, role: str, schema: str | None = None) -> tuple[str, ...]:
    """Returns the statements that let `role` be this part; for the owner, again after each migration.

    Without a schema they are for the one in which the session that runs them would make a table. They take
    from PUBLIC what default privileges may have given it.
    """
    quoted = _name(role)
    prefix = f"{_name(schema)}." if schema else ""
    tables = ", ".join(f"{prefix}{table}" for table in (*TABLES, "outbox_state", VERSION_TABLE))
    return (
        _usage(quoted, schema),
        f"REVOKE ALL ON {tables} FROM PUBLIC",
        *(f"GRANT {rights} ON {prefix}{table} TO {quoted}" for table, rights in RIGHTS[part].items()),
        *(f"GRANT EXECUTE ON FUNCTION {prefix}{each} TO {quoted}" for each in FUNCTIONS.get(part, ())),
    )


def _usage(quoted: str, schema: str | None) -> str:
    if schema:
        return f"GRANT USAGE ON SCHEMA {_name(schema)} TO {quoted}"
    grant = f"GRANT USAGE ON SCHEMA %I TO {quoted.replace('%', '%%')}".replace("'", "''")
    return f"DO $do$ BEGIN EXECUTE format('{grant}', current_schema()); END $do$"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
