"""The numbers and names that the tables, the writer and the relay agree on."""

from __future__ import annotations

VERSION_TABLE = "outbox_alembic_version"
"""Alembic's own table for these migrations, beside a service's `alembic_version`."""

REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
)
"""Every migration, oldest first; what a database is at says whether one is missing."""

LANES = 64
"""Key groups per sink. Written into the rows, so it never changes."""

KEY_BYTES = 1_024
"""The longest key."""

DESTINATION_BYTES = 512
"""The longest destination."""

TYPE_BYTES = 255
"""The longest message type."""

HEADERS = 64
"""How many headers a message may have."""

HEADERS_BYTES = 16_384
"""The longest headers, names and values together."""

HEADERS_TEXT_BYTES = 100_000
"""The longest headers as the JSON that a relay reads; what `HEADERS_BYTES` comes to if all of it is escaped.
As PostgreSQL stores them they are no longer, and perhaps compressed."""

PAYLOAD_BYTES = 100_000_000
"""The longest payload, whatever a sink takes."""

FIRST_TIME, LAST_TIME = "0001-01-02 00:00:00+00", "9999-12-30 00:00:00+00"
"""The range of times: a day from either end of what Python can tell, for the sake of offsets."""

CONSUMER_BYTES = 255
"""The longest name of a consumer in the inbox."""

TABLES = (
    "outbox",
    "outbox_queue",
    "outbox_receipts",
    "outbox_lanes",
    "outbox_relays",
    "outbox_sinks",
    "outbox_inbox",
    "outbox_walks",
    "outbox_amiss",
    "outbox_pauses",
    "outbox_operations",
    "outbox_acts",
)
