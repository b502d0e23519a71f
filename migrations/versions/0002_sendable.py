"""Refuses, when it is written, what no relay could send; the queue tells the size as it is sent.

A delivery without a key has a hash in the queue that no key can have by being its id. `outbox` keeps what it
says of it, and so the lane.
"""

from __future__ import annotations

from alembic import op

from outbox.migrate import steps

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

_RANGE = "BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-30 00:00:00+00'"

CHECKS = {
    "outbox_created_range": f"created_at {_RANGE}",
    "outbox_available_range": f"available_at {_RANGE}",
    "outbox_expires_range": f"expires_at {_RANGE}",
    "outbox_payload_length": "octet_length(payload) <= 100000000",
    "outbox_headers_length": "octet_length(headers::text) <= 100000",
    "outbox_header_names": "NOT headers ? ''",
}

_ENQUEUE = """
CREATE OR REPLACE FUNCTION %1$I.outbox_enqueue() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    INSERT INTO %1$I.outbox_queue
        (sink, lane, id, key_hash, destination_hash, bytes, first_due_at, due_at)
    SELECT sink, lane, id, {key_hash}, hashtextextended(destination, 0),
           coalesce(octet_length(payload), 0) + coalesce(octet_length(key), 0) + {headers},
           {first_due_at},
           CASE WHEN available_at > clock_timestamp() THEN available_at END
    FROM written;
    RETURN NULL;
END
$function$
"""

_BEFORE = _ENQUEUE.format(
    key_hash="key_hash",
    headers="pg_column_size(headers)",
    first_due_at="greatest(available_at, created_at)",
)

ENQUEUE = _ENQUEUE.format(
    key_hash="CASE WHEN key IS NULL THEN hashint8extended(id, 1) ELSE key_hash END",
    headers="octet_length(headers::text)",
    first_due_at="least(greatest(available_at, created_at, '0001-01-02 00:00:00+00'), '9999-12-30 00:00:00+00')",
)

COMMENTS = {
    "key_hash": (
        "As in outbox. Never changes.",
        "As in outbox, but another where the key is null. Never changes.",
    ),
    "bytes": (
        "Size of the delivery; cuts a fetch. Never changes.",
        "Size as sent; cuts a fetch. Never changes.",
    ),
}
"""Of columns of the queue: before and after."""


def upgrade() -> None:
    _comment(after=True)
    for name, condition in CHECKS.items():
        steps.add_check(name, condition)
    steps.create_in_schema(ENQUEUE)


def downgrade() -> None:
    _comment(after=False)
    steps.create_in_schema(_BEFORE)
    for name in reversed(CHECKS):
        steps.drop_check(name)


def _comment(*, after: bool) -> None:
    for column, comments in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN outbox_queue.{column} IS '{comments[after]}'")
