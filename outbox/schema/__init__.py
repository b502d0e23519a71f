"""The database as we describe it: the tables, what the catalog should hold, who needs which rights.

Imports no other room, so that every room may.
"""

from outbox.schema.limits import (
    DESTINATION_BYTES,
    FIRST_TIME,
    HEADERS,
    HEADERS_BYTES,
    HEADERS_TEXT_BYTES,
    KEY_BYTES,
    LANES,
    LAST_TIME,
    PAYLOAD_BYTES,
    REVISIONS,
    TABLES,
    TYPE_BYTES,
    VERSION_TABLE,
)
from outbox.schema.tables import in_schema, include_name, metadata, table

__all__ = [
    "DESTINATION_BYTES",
    "FIRST_TIME",
    "HEADERS",
    "HEADERS_BYTES",
    "HEADERS_TEXT_BYTES",
    "KEY_BYTES",
    "LANES",
    "LAST_TIME",
    "PAYLOAD_BYTES",
    "REVISIONS",
    "TABLES",
    "TYPE_BYTES",
    "VERSION_TABLE",
    "in_schema",
    "include_name",
    "metadata",
    "table",
]
