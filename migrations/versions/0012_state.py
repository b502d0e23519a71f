"""The view tells the cause of a parking."""

from __future__ import annotations

from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | None = None
depends_on: str | None = None

STATE_OF_QUEUE = """
{create} VIEW outbox_state AS
SELECT q.id, o.message_id, o.type, q.sink, o.destination, o.key, q.lane,
       CASE
           WHEN q.parked_at IS NOT NULL THEN 'parked'
           WHEN q.due_at IS NOT NULL AND q.last_error IS NOT NULL THEN 'retrying'
           WHEN q.due_at > clock_timestamp() THEN 'scheduled'
           WHEN EXISTS (
               SELECT FROM outbox_queue head
               WHERE head.sink = q.sink AND head.lane = q.lane AND head.key_hash = q.key_hash
                 AND head.blocks AND head.id < q.id
           ) THEN 'held'
           ELSE 'ready'
       END AS state,
       q.parked_at IS NULL
           AND q.first_due_at < clock_timestamp() - coalesce(s.stuck_after, interval '5 minutes') AS stuck,
       q.attempts, q.last_error, o.created_at, q.first_due_at, q.due_at, o.expires_at, q.parked_at,
       q.blocks, q.uncertain, q.bytes,
       NULL::timestamptz AS settled_at, NULL::integer AS partition, NULL::bigint AS partition_offset,
       NULL::integer AS receivers, o.replay_id,
       o.headers ->> 'correlation_id' AS correlation_id,
       true AS pending{of_queue}
FROM outbox_queue q
JOIN outbox o USING (sink, lane, id)
LEFT JOIN outbox_sinks s ON s.sink = q.sink
"""

# A branch for each outcome, with a literal state: the planner leaves out those that cannot be meant, so
# that `where state = 'parked'` or `where stuck` reads no receipts.
STATE_OF_RECEIPTS = """
UNION ALL
SELECT o.id, o.message_id, o.type, o.sink, o.destination, o.key, o.lane,
       '{outcome}' AS state, false AS stuck,
       r.attempts, NULL::text, o.created_at, greatest(o.available_at, o.created_at), NULL::timestamptz,
       o.expires_at, NULL::timestamptz, false, false, NULL::integer,
       r.settled_at, r.partition, r.partition_offset, r.receivers, o.replay_id,
       o.headers ->> 'correlation_id' AS correlation_id,
       false AS pending{of_receipts}
FROM outbox_receipts r
JOIN outbox o USING (id)
WHERE r.outcome = '{outcome}'
"""

COMMENT = "One row per delivery with its state; stuck ones: select * from outbox_state where stuck"
OUTCOMES = ("delivered", "expired", "skipped")


def upgrade() -> None:
    # A column at the end, so that the view, and who may read it, stay.
    create("CREATE OR REPLACE", ", q.fingerprint", ", NULL::bigint")


def downgrade() -> None:
    op.execute("DROP VIEW outbox_state")
    create("CREATE", "", "")
    op.execute(f"COMMENT ON VIEW outbox_state IS '{COMMENT}'")


def create(how: str, of_queue: str, of_receipts: str) -> None:
    receipts = (STATE_OF_RECEIPTS.format(outcome=outcome, of_receipts=of_receipts) for outcome in OUTCOMES)
    op.execute(STATE_OF_QUEUE.format(create=how, of_queue=of_queue) + "".join(receipts))
