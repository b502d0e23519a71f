"""The outbox: tables, triggers and the view."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

# A SECURITY DEFINER function needs schema-qualified names, and a migration does not know its schema before
# it runs (nor do we want it in the SQL of a shared one), so the database fills it in for %1$I.
IN_SCHEMA = """
DO $do$
BEGIN
EXECUTE format($create$
{statement}
$create$, current_schema());
END
$do$
"""

# The row is what the writer's rights allow; the queue is nobody's but the relay's and the owner's.
# A pg_temp that is named comes last, so a writer's temporary tables shadow nothing.
ENQUEUE = """
CREATE FUNCTION %1$I.outbox_enqueue() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    INSERT INTO %1$I.outbox_queue
        (sink, lane, id, key_hash, destination_hash, bytes, first_due_at, due_at)
    SELECT sink, lane, id, key_hash, hashtextextended(destination, 0),
           coalesce(octet_length(payload), 0) + coalesce(octet_length(key), 0) + pg_column_size(headers),
           greatest(available_at, created_at),
           CASE WHEN available_at > clock_timestamp() THEN available_at END
    FROM written;
    RETURN NULL;
END
$function$
"""

# An id drawn before its transaction has an xid could become visible below a floor that has
# passed it; so the xid comes first.
BEGIN_WRITING = """
CREATE FUNCTION outbox_begin_writing() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    PERFORM pg_catalog.pg_current_xact_id();
    RETURN NULL;
END
$function$
"""

TRIGGERS = (
    "CREATE TRIGGER outbox_begin_writing BEFORE INSERT ON outbox"
    " FOR EACH STATEMENT EXECUTE FUNCTION outbox_begin_writing()",
    "CREATE TRIGGER outbox_enqueue AFTER INSERT ON outbox REFERENCING NEW TABLE AS written"
    " FOR EACH STATEMENT EXECUTE FUNCTION outbox_enqueue()",
)

# Tells a writer, who may only INSERT, what stands where its row was not taken. Anybody may ask, but learns
# something only of a message whose id, destination and content it knows.
WRITTEN_ALIKE = """
CREATE FUNCTION %1$I.outbox_written_alike(
    message_id uuid, sink text, destination text, type text, key text, payload bytea
) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT (o.type, o.key, o.payload) IS NOT DISTINCT FROM ($4, $5, $6)
    FROM %1$I.outbox o
    WHERE o.message_id = $1 AND o.sink = $2 AND o.destination = $3 AND o.replay_id IS NULL
$function$
"""

# Whoever may put a function under a trigger of its own table could feed the queue with anything.
RIGHTS = "REVOKE ALL ON FUNCTION outbox_enqueue() FROM PUBLIC"

# By sink and lane too, which the row of outbox has as well: that is how the queue is found by an id.
STATE_OF_QUEUE = """
CREATE VIEW outbox_state AS
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
       true AS pending
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
       false AS pending
FROM outbox_receipts r
JOIN outbox o USING (id)
WHERE r.outcome = '{outcome}'
"""

STORAGE = (
    # Rows live for milliseconds: vacuum by how many died, at once, and never for long.
    "ALTER TABLE outbox_queue SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,"
    " autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0,"
    " autovacuum_analyze_threshold = 200000)",
    # Insert-only but for prune, which deletes small batches all day long.
    "ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,"
    " autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000)",
    "ALTER TABLE outbox_receipts SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,"
    " autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000)",
    "ALTER TABLE outbox_inbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,"
    " autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000)",
    "ALTER TABLE outbox_lanes SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)",
    "ALTER TABLE outbox_relays SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)",
)


COMMENTS = {
    "VIEW outbox_state": "One row per delivery with its state; stuck ones: select * from outbox_state where stuck",
    "FUNCTION outbox_enqueue()": "Fills outbox_queue with what a statement wrote to outbox.",
    "FUNCTION outbox_begin_writing()": "Gives the transaction its xid before it draws an id.",
    "FUNCTION outbox_written_alike(uuid, text, text, text, text, bytea)": "Whether what is written there under this message_id says the same; null: nothing is.",
}


def upgrade() -> None:
    create_tables()
    op.execute(BEGIN_WRITING)
    op.execute(IN_SCHEMA.format(statement=ENQUEUE))
    op.execute(IN_SCHEMA.format(statement=WRITTEN_ALIKE))
    op.execute(RIGHTS)
    for statement in (*TRIGGERS, *STORAGE):
        op.execute(statement)
    outcomes = ("delivered", "expired", "skipped")
    op.execute(STATE_OF_QUEUE + "".join(STATE_OF_RECEIPTS.format(outcome=outcome) for outcome in outcomes))
    for what, comment in COMMENTS.items():
        op.execute(f"COMMENT ON {what} IS '{comment}'")


def downgrade() -> None:
    op.execute("DROP VIEW outbox_state")
    for name in (
        "outbox_inbox",
        "outbox_sinks",
        "outbox_relays",
        "outbox_lanes",
        "outbox_receipts",
        "outbox_queue",
        "outbox",
    ):
        op.drop_table(name)
    op.execute("DROP FUNCTION outbox_written_alike(uuid, text, text, text, text, bytea)")
    op.execute("DROP FUNCTION outbox_enqueue()")
    op.execute("DROP FUNCTION outbox_begin_writing()")


def create_tables() -> None:
    op.create_table(
        "outbox",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="The order: deliveries of one key are sent by rising id. Never changes.",
        ),
        sa.Column(
            "message_id",
            sa.UUID(),
            nullable=False,
            comment="What consumers de-duplicate on; the same in all deliveries of a message.",
        ),
        sa.Column(
            "type",
            sa.Text(),
            nullable=False,
            comment="What kind of message, as logs, metrics and headers call it.",
        ),
        sa.Column(
            "sink",
            sa.Text(),
            nullable=False,
            comment="Which sink sends it: kafka, redis, or one of your own.",
        ),
        sa.Column("destination", sa.Text(), nullable=False, comment="The topic or channel in the sink."),
        sa.Column(
            "key",
            sa.Text(),
            nullable=True,
            comment="Deliveries of one (sink, destination, key) keep their order; null: no order.",
        ),
        sa.Column(
            "payload",
            sa.LargeBinary(),
            nullable=True,
            comment="The exact bytes to send, fixed when written; null is a tombstone.",
        ),
        sa.Column(
            "headers",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="An object of strings that goes with the message.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it was written.",
        ),
        sa.Column(
            "available_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Not sent before; null: at once.",
        ),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Not sent from then on; null: never too late.",
        ),
        sa.Column(
            "replay_id",
            sa.UUID(),
            nullable=True,
            comment="Which replay wrote this row again; null: the first writing.",
        ),
        sa.Column(
            "key_hash",
            sa.BigInteger(),
            sa.Computed(
                "hashtextextended(coalesce(key, id::text), hashtextextended(destination, 0))", persisted=True
            ),
            nullable=False,
            comment="Equal for all deliveries of one (destination, key); unique where the key is null.",
        ),
        sa.Column(
            "lane",
            sa.SmallInteger(),
            sa.Computed(
                "(hashtextextended(coalesce(key, id::text), hashtextextended(destination, 0)) & 63)::smallint",
                persisted=True,
            ),
            nullable=False,
            comment="Key group, 0 to 63: the unit that a relay owns.",
        ),
        sa.CheckConstraint(
            "jsonb_typeof(headers) = 'object' AND "
            "NOT jsonb_path_exists(headers, 'strict $.* ? (@.type() != \"string\")', silent => true)",
            name=op.f("outbox_headers_strings"),
        ),
        sa.CheckConstraint("sink ~ '^[a-z_][a-z0-9_]{0,62}$'", name=op.f("outbox_sink_name")),
        sa.CheckConstraint("expires_at > available_at", name=op.f("outbox_expires_after_available")),
        sa.CheckConstraint(
            "octet_length(destination) BETWEEN 1 AND 512", name=op.f("outbox_destination_length")
        ),
        sa.CheckConstraint("octet_length(key) <= 1024", name=op.f("outbox_key_length")),
        sa.CheckConstraint("octet_length(type) BETWEEN 1 AND 255", name=op.f("outbox_type_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_pkey")),
        comment="What was written: one row per delivery, append-only, deleted by prune only.",
    )
    op.create_index(
        "outbox_message",
        "outbox",
        [
            "message_id",
            "sink",
            "destination",
            sa.literal_column("coalesce(replay_id, '00000000-0000-0000-0000-000000000000'::uuid)"),
        ],
        unique=True,
    )
    op.create_table(
        "outbox_lanes",
        sa.Column("sink", sa.Text(), nullable=False, comment="The sink."),
        sa.Column(
            "lane", sa.SmallInteger(), autoincrement=False, nullable=False, comment="The lane, 0 to 63."
        ),
        sa.Column(
            "owner",
            sa.UUID(),
            nullable=True,
            comment="The relay that owns it; null: free. Changes when it does.",
        ),
        sa.Column(
            "epoch",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Raised by each change of owner; fences a former owner's writes.",
        ),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="The lease: free from then on. Moved by each heartbeat.",
        ),
        sa.CheckConstraint(
            "(owner IS NULL) = (expires_at IS NULL)", name=op.f("outbox_lanes_owner_has_lease")
        ),
        sa.CheckConstraint("lane BETWEEN 0 AND 63", name=op.f("outbox_lanes_lane_range")),
        sa.PrimaryKeyConstraint("sink", "lane", name=op.f("outbox_lanes_pkey")),
        comment="Who owns which lane of which sink, and until when.",
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "outbox_queue",
        sa.Column("sink", sa.Text(), nullable=False, comment="As in outbox. Never changes."),
        sa.Column(
            "lane",
            sa.SmallInteger(),
            autoincrement=False,
            nullable=False,
            comment="As in outbox. Never changes.",
        ),
        sa.Column(
            "id",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="The row of outbox. Never changes.",
        ),
        sa.Column("key_hash", sa.BigInteger(), nullable=False, comment="As in outbox. Never changes."),
        sa.Column(
            "destination_hash",
            sa.BigInteger(),
            nullable=False,
            comment="hashtextextended(destination, 0): what an open breaker leaves out. Never changes.",
        ),
        sa.Column(
            "bytes",
            sa.Integer(),
            nullable=False,
            comment="Size of the delivery; cuts a fetch. Never changes.",
        ),
        sa.Column(
            "first_due_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was first due: the stuck clock. Never changes.",
        ),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Waits until then: scheduled, or a retry. Null: in line. Changes with each failure.",
        ),
        sa.Column(
            "attempts",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Failed attempts that count. Grows with each; an operator's retry sets it to 0.",
        ),
        sa.Column(
            "last_error",
            sa.Text(),
            nullable=True,
            comment="Why the last attempt failed. Changes with each failure.",
        ),
        sa.Column(
            "blocks",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Later deliveries of its key wait for it: it waits for a retry, or is parked under hold.",
        ),
        sa.Column(
            "uncertain",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="An attempt may have arrived: it is sent again before it is given up.",
        ),
        sa.Column(
            "parked_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the relay stopped trying; null: it has not.",
        ),
        sa.CheckConstraint(
            "NOT blocks OR due_at IS NOT NULL OR parked_at IS NOT NULL",
            name=op.f("outbox_queue_blocks_while_waiting"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("outbox_queue_attempts_positive")),
        sa.CheckConstraint(
            "parked_at IS NULL OR due_at IS NULL", name=op.f("outbox_queue_parked_is_not_due")
        ),
        sa.CheckConstraint(
            "parked_at IS NULL OR last_error IS NOT NULL", name=op.f("outbox_queue_parked_has_reason")
        ),
        sa.PrimaryKeyConstraint("sink", "lane", "id", name=op.f("outbox_queue_pkey")),
        comment="What is still to do: one row per delivery, deleted when it is done.",
    )
    op.create_index(
        op.f("outbox_queue_parked_at"),
        "outbox_queue",
        ["parked_at"],
        unique=False,
        postgresql_where=sa.text("parked_at IS NOT NULL"),
    )
    op.create_index(
        op.f("outbox_queue_sink_lane_due_at_id"),
        "outbox_queue",
        ["sink", "lane", "due_at", "id"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        op.f("outbox_queue_sink_lane_key_hash_id"),
        "outbox_queue",
        ["sink", "lane", "key_hash", "id"],
        unique=False,
        postgresql_where=sa.text("blocks"),
    )
    op.create_table(
        "outbox_receipts",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The row of outbox."),
        sa.Column("outcome", sa.Text(), nullable=False, comment="delivered, expired or skipped."),
        sa.Column(
            "settled_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When that was recorded.",
        ),
        sa.Column(
            "attempts", sa.SmallInteger(), nullable=False, comment="Failed attempts that counted before."
        ),
        sa.Column("partition", sa.Integer(), nullable=True, comment="Kafka: the partition it is in."),
        sa.Column(
            "partition_offset", sa.BigInteger(), nullable=True, comment="Kafka: its offset in the partition."
        ),
        sa.Column("receivers", sa.Integer(), nullable=True, comment="Redis: how many subscribers got it."),
        sa.CheckConstraint(
            "outcome IN ('delivered', 'expired', 'skipped')", name=op.f("outbox_receipts_outcome_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_receipts_pkey")),
        comment="What was done: one row per finished delivery; never changes, deleted by prune.",
    )
    op.create_table(
        "outbox_relays",
        sa.Column("relay_id", sa.UUID(), nullable=False, comment="Made when the relay starts."),
        sa.Column("name", sa.Text(), nullable=False, comment="host:pid, for people."),
        sa.Column("version", sa.Text(), nullable=False, comment="The version of this package that it runs."),
        sa.Column("sinks", postgresql.ARRAY(sa.Text()), nullable=False, comment="The sinks that it serves."),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it started.",
        ),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Not counted among the living from then on. Moved by each heartbeat.",
        ),
        sa.PrimaryKeyConstraint("relay_id", name=op.f("outbox_relays_pkey")),
        comment="The relays that live: they divide the lanes among them.",
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "outbox_sinks",
        sa.Column("sink", sa.Text(), nullable=False, comment="The sink."),
        sa.Column(
            "stuck_after",
            sa.Interval(),
            nullable=False,
            comment="How long past first_due_at a delivery is stuck.",
        ),
        sa.Column(
            "on_park",
            sa.Text(),
            nullable=False,
            comment="continue: a parked delivery's key goes on; hold: it waits.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When a relay last wrote it.",
        ),
        sa.Column(
            "holds_ended",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="How often holds were ended by others than their lane's owner, who looks again from the beginning when it grows.",
        ),
        sa.CheckConstraint("on_park IN ('continue', 'hold')", name=op.f("outbox_sinks_on_park_known")),
        sa.PrimaryKeyConstraint("sink", name=op.f("outbox_sinks_pkey")),
        comment="What all relays and the view need to know of a sink; written by each relay when it starts.",
    )
    op.create_table(
        "outbox_inbox",
        sa.Column("consumer", sa.Text(), nullable=False, comment="Who acted on it; each consumer acts once."),
        sa.Column(
            "message_id",
            sa.UUID(),
            nullable=False,
            comment="The message that it acted on, from its header.",
        ),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When that was recorded.",
        ),
        sa.CheckConstraint(
            "octet_length(consumer) BETWEEN 1 AND 255", name=op.f("outbox_inbox_consumer_length")
        ),
        sa.PrimaryKeyConstraint("consumer", "message_id", name=op.f("outbox_inbox_pkey")),
        comment="What consumers have acted on, so that they drop what comes again; deleted by prune_inbox.",
    )
