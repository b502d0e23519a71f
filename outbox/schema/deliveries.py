"""The life of a delivery: written, still to do, done."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from outbox.schema.columns import NOW, time
from outbox.schema.limits import (
    DESTINATION_BYTES,
    FIRST_TIME,
    HEADERS_TEXT_BYTES,
    KEY_BYTES,
    LANES,
    LAST_TIME,
    PAYLOAD_BYTES,
    TYPE_BYTES,
)
from outbox.schema.lookup import is_parked
from outbox.schema.notes import NOTE

_KEY_HASH = "hashtextextended(coalesce(key, id::text), hashtextextended(destination, 0))"
_RANGE = f"BETWEEN '{FIRST_TIME}' AND '{LAST_TIME}'"
# Anything else would fail each relay that reads it.
_HEADERS_ARE_STRINGS = (
    "jsonb_typeof(headers) = 'object' AND "
    "NOT jsonb_path_exists(headers, 'strict $.* ? (@.type() != \"string\")', silent => true)"
)


def outbox(tables: MetaData) -> None:
    """Describes what was written."""
    Table(
        "outbox",
        tables,
        Column(
            "id",
            BigInteger,
            Identity(always=True),
            primary_key=True,
            comment="The order: deliveries of one key are sent by rising id. Never changes.",
        ),
        Column(
            "message_id",
            UUID(as_uuid=True),
            nullable=False,
            comment="What consumers de-duplicate on; the same in all deliveries of a message.",
        ),
        Column(
            "type",
            Text,
            nullable=False,
            comment="What kind of message, as logs, metrics and headers call it.",
        ),
        Column(
            "sink", Text, nullable=False, comment="Which sink sends it: kafka, redis, or one of your own."
        ),
        Column("destination", Text, nullable=False, comment="The topic or channel in the sink."),
        Column(
            "key",
            Text,
            comment="Deliveries of one (sink, destination, key) keep their order; null: no order.",
        ),
        Column(
            "payload",
            LargeBinary,
            comment="The exact bytes to send, fixed when written; null is a tombstone.",
        ),
        Column(
            "headers",
            JSONB,
            nullable=False,
            server_default=text("'{}'::jsonb"),
            comment="An object of strings that goes with the message.",
        ),
        time("created_at", "When it was written.", nullable=False, server_default=NOW),
        time("available_at", "Not sent before; null: at once."),
        time("expires_at", "Not sent from then on; null: never too late."),
        Column(
            "replay_id",
            UUID(as_uuid=True),
            comment="Which replay wrote this row again; null: the first writing.",
        ),
        Column(
            "key_hash",
            BigInteger,
            Computed(_KEY_HASH, persisted=True),
            nullable=False,
            comment="Equal for all deliveries of one (destination, key); unique where the key is null.",
        ),
        Column(
            "lane",
            SmallInteger,
            Computed(f"({_KEY_HASH} & {LANES - 1})::smallint", persisted=True),
            nullable=False,
            comment="Key group, 0 to 63: the unit that a relay owns.",
        ),
        CheckConstraint("id > 0", name="id_positive"),
        CheckConstraint(f"octet_length(type) BETWEEN 1 AND {TYPE_BYTES}", name="type_length"),
        CheckConstraint("sink ~ '^[a-z_][a-z0-9_]{0,62}$'", name="sink_name"),
        CheckConstraint(
            f"octet_length(destination) BETWEEN 1 AND {DESTINATION_BYTES}", name="destination_length"
        ),
        CheckConstraint(f"octet_length(key) <= {KEY_BYTES}", name="key_length"),
        CheckConstraint(_HEADERS_ARE_STRINGS, name="headers_strings"),
        CheckConstraint("expires_at > available_at", name="expires_after_available"),
        CheckConstraint(f"created_at {_RANGE}", name="created_range"),
        CheckConstraint(f"available_at {_RANGE}", name="available_range"),
        CheckConstraint(f"expires_at {_RANGE}", name="expires_range"),
        CheckConstraint(f"octet_length(payload) <= {PAYLOAD_BYTES}", name="payload_length"),
        CheckConstraint(f"octet_length(headers::text) <= {HEADERS_TEXT_BYTES}", name="headers_length"),
        CheckConstraint("NOT headers ? ''", name="header_names"),
        # One delivery per message and destination, whoever writes it twice; also finds a message's rows.
        Index(
            "outbox_message",
            "message_id",
            "sink",
            "destination",
            text("coalesce(replay_id, '00000000-0000-0000-0000-000000000000'::uuid)"),
            unique=True,
        ),
        # Whether a note waits at a destination; messages cost it nothing but a look at their type.
        Index("outbox_gap_note", "sink", "destination", "id", postgresql_where=text(f"type = '{NOTE}'")),
        comment="What was written: one row per delivery, append-only, deleted by prune only.",
    )


def queue(tables: MetaData) -> None:
    """Describes what is still to do."""
    Table(
        "outbox_queue",
        tables,
        Column("sink", Text, primary_key=True, comment="As in outbox. Never changes."),
        Column(
            "lane",
            SmallInteger,
            primary_key=True,
            autoincrement=False,
            comment="As in outbox. Never changes.",
        ),
        Column(
            "id",
            BigInteger,
            primary_key=True,
            autoincrement=False,
            comment="The row of outbox. Never changes.",
        ),
        Column(
            "key_hash",
            BigInteger,
            nullable=False,
            comment="As in outbox, but another where the key is null. Never changes.",
        ),
        Column(
            "destination_hash",
            BigInteger,
            nullable=False,
            comment="hashtextextended(destination, 0): what an open breaker leaves out. Never changes.",
        ),
        Column("bytes", Integer, nullable=False, comment="Size as sent; cuts a fetch. Never changes."),
        time("first_due_at", "When it was first due: the stuck clock. Never changes.", nullable=False),
        time("due_at", "Waits until then: scheduled, or a retry. Null: in line. Changes with each failure."),
        Column(
            "attempts",
            SmallInteger,
            nullable=False,
            server_default=text("0"),
            comment="Failed attempts that count. Grows with each; an operator's retry sets it to 0.",
        ),
        Column("last_error", Text, comment="Why the last attempt failed. Changes with each failure."),
        Column(
            "blocks",
            Boolean,
            nullable=False,
            server_default=text("false"),
            comment="Later deliveries of its key wait for it: it waits for a retry, or is parked under hold.",
        ),
        Column(
            "uncertain",
            Boolean,
            nullable=False,
            server_default=text("false"),
            comment="An attempt may have arrived: it is sent again before it is given up.",
        ),
        time("parked_at", "When the relay stopped trying; null: it has not."),
        Column(
            "fingerprint",
            BigInteger,
            nullable=False,
            server_default=text("0"),
            comment="The cause of its parking, for which it is one of a group. Changes when it is parked.",
        ),
        CheckConstraint("attempts >= 0", name="attempts_positive"),
        CheckConstraint("parked_at IS NULL OR due_at IS NULL", name="parked_is_not_due"),
        CheckConstraint("parked_at IS NULL OR last_error IS NOT NULL", name="parked_has_reason"),
        CheckConstraint(
            "NOT blocks OR due_at IS NOT NULL OR parked_at IS NOT NULL", name="blocks_while_waiting"
        ),
        # Which keys are held: the fetch asks it for each row.
        Index(None, "sink", "lane", "key_hash", "id", postgresql_where=text("blocks")),
        # Scheduled deliveries and retries, by when they are due.
        Index(None, "sink", "lane", "due_at", "id", postgresql_where=text("due_at IS NOT NULL")),
        # What a person must decide on, without walking the rest.
        Index(None, "parked_at", postgresql_where=text("parked_at IS NOT NULL")),
        # The same by cause.
        Index(
            "outbox_queue_fingerprint",
            "sink",
            "fingerprint",
            "parked_at",
            "id",
            postgresql_where=text("parked_at IS NOT NULL"),
        ),
        # What is parked earlier of a key: a later one is not tried again before it.
        Index("outbox_queue_parked_key", "key_hash", "id", postgresql_where=text(is_parked(""))),
        comment="What is still to do: one row per delivery, deleted when it is done.",
    )


def receipts(tables: MetaData) -> None:
    """Describes what was done."""
    Table(
        "outbox_receipts",
        tables,
        # A primary key, not BRIN: BRIN decays once pruned space is reused.
        Column("id", BigInteger, primary_key=True, autoincrement=False, comment="The row of outbox."),
        Column("outcome", Text, nullable=False, comment="delivered, expired or skipped."),
        time("settled_at", "When that was recorded.", nullable=False, server_default=NOW),
        Column("attempts", SmallInteger, nullable=False, comment="Failed attempts that counted before."),
        Column("partition", Integer, comment="Kafka: the partition it is in."),
        Column("partition_offset", BigInteger, comment="Kafka: its offset in the partition."),
        Column("receivers", Integer, comment="Redis: how many subscribers got it."),
        CheckConstraint("outcome IN ('delivered', 'expired', 'skipped')", name="outcome_known"),
        comment="What was done: one row per finished delivery; never changes, deleted by prune.",
    )
