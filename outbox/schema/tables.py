"""The tables as SQLAlchemy describes them: columns, constraints, indexes, and why each is there.

Alembic compares this with the database. Triggers, functions and the view `outbox_state` live in the
migrations only. Every timestamp is the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

VERSION_TABLE = "outbox_alembic_version"
"""Alembic's own table for these migrations, beside a service's `alembic_version`."""

REVISIONS = ("0001",)
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
)

_KEY_HASH = "hashtextextended(coalesce(key, id::text), hashtextextended(destination, 0))"
_NOW = text("clock_timestamp()")
# Anything else would fail each relay that reads it.
_HEADERS_ARE_STRINGS = (
    "jsonb_typeof(headers) = 'object' AND "
    "NOT jsonb_path_exists(headers, 'strict $.* ? (@.type() != \"string\")', silent => true)"
)

_CONVENTION = {
    "pk": "%(table_name)s_pkey",
    "ck": "%(table_name)s_%(constraint_name)s",
    "ix": "%(table_name)s_%(column_0_N_name)s",
}


def _time(name: str, comment: str, **options: object) -> Column[object]:
    return Column(name, DateTime(timezone=True), comment=comment, **options)  # type: ignore[arg-type]


@cache
def metadata(schema: str | None = None) -> MetaData:
    """All tables, in `schema` or in the connection's own."""
    tables = MetaData(schema=schema, naming_convention=_CONVENTION)
    _outbox(tables)
    _queue(tables)
    _receipts(tables)
    _lanes(tables)
    _relays(tables)
    _sinks(tables)
    _inbox(tables)
    return tables


def table(name: str, schema: str | None = None) -> Table:
    """One of `TABLES`."""
    return metadata(schema).tables[f"{schema}.{name}" if schema else name]


def include_name(name: str | None, kind: str, _parents: Mapping[Any, str | None]) -> bool:
    """Keep a service's own Alembic away from our tables: `context.configure(…, include_name=include_name)`.

    Without it, `alembic revision --autogenerate` proposes to drop every table that the service's
    metadata does not have. Not needed where the outbox has a schema of its own.
    """
    return kind != "table" or name not in (*TABLES, VERSION_TABLE)


def _outbox(tables: MetaData) -> None:
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
        _time("created_at", "When it was written.", nullable=False, server_default=_NOW),
        _time("available_at", "Not sent before; null: at once."),
        _time("expires_at", "Not sent from then on; null: never too late."),
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
        CheckConstraint(f"octet_length(type) BETWEEN 1 AND {TYPE_BYTES}", name="type_length"),
        CheckConstraint("sink ~ '^[a-z_][a-z0-9_]{0,62}$'", name="sink_name"),
        CheckConstraint(
            f"octet_length(destination) BETWEEN 1 AND {DESTINATION_BYTES}", name="destination_length"
        ),
        CheckConstraint(f"octet_length(key) <= {KEY_BYTES}", name="key_length"),
        CheckConstraint(_HEADERS_ARE_STRINGS, name="headers_strings"),
        CheckConstraint("expires_at > available_at", name="expires_after_available"),
        # One delivery per message and destination, whoever writes it twice; also finds a message's rows.
        Index(
            "outbox_message",
            "message_id",
            "sink",
            "destination",
            text("coalesce(replay_id, '00000000-0000-0000-0000-000000000000'::uuid)"),
            unique=True,
        ),
        comment="What was written: one row per delivery, append-only, deleted by prune only.",
    )


def _queue(tables: MetaData) -> None:
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
        Column("key_hash", BigInteger, nullable=False, comment="As in outbox. Never changes."),
        Column(
            "destination_hash",
            BigInteger,
            nullable=False,
            comment="hashtextextended(destination, 0): what an open breaker leaves out. Never changes.",
        ),
        Column(
            "bytes", Integer, nullable=False, comment="Size of the delivery; cuts a fetch. Never changes."
        ),
        _time("first_due_at", "When it was first due: the stuck clock. Never changes.", nullable=False),
        _time("due_at", "Waits until then: scheduled, or a retry. Null: in line. Changes with each failure."),
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
        _time("parked_at", "When the relay stopped trying; null: it has not."),
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
        comment="What is still to do: one row per delivery, deleted when it is done.",
    )


def _receipts(tables: MetaData) -> None:
    Table(
        "outbox_receipts",
        tables,
        # A primary key, not BRIN: BRIN decays once pruned space is reused.
        Column("id", BigInteger, primary_key=True, autoincrement=False, comment="The row of outbox."),
        Column("outcome", Text, nullable=False, comment="delivered, expired or skipped."),
        _time("settled_at", "When that was recorded.", nullable=False, server_default=_NOW),
        Column("attempts", SmallInteger, nullable=False, comment="Failed attempts that counted before."),
        Column("partition", Integer, comment="Kafka: the partition it is in."),
        Column("partition_offset", BigInteger, comment="Kafka: its offset in the partition."),
        Column("receivers", Integer, comment="Redis: how many subscribers got it."),
        CheckConstraint("outcome IN ('delivered', 'expired', 'skipped')", name="outcome_known"),
        comment="What was done: one row per finished delivery; never changes, deleted by prune.",
    )


def _lanes(tables: MetaData) -> None:
    Table(
        "outbox_lanes",
        tables,
        Column("sink", Text, primary_key=True, comment="The sink."),
        Column("lane", SmallInteger, primary_key=True, autoincrement=False, comment="The lane, 0 to 63."),
        Column(
            "owner", UUID(as_uuid=True), comment="The relay that owns it; null: free. Changes when it does."
        ),
        Column(
            "epoch",
            BigInteger,
            nullable=False,
            server_default=text("0"),
            comment="Raised by each change of owner; fences a former owner's writes.",
        ),
        _time("expires_at", "The lease: free from then on. Moved by each heartbeat."),
        CheckConstraint(f"lane BETWEEN 0 AND {LANES - 1}", name="lane_range"),
        CheckConstraint("(owner IS NULL) = (expires_at IS NULL)", name="owner_has_lease"),
        comment="Who owns which lane of which sink, and until when.",
        postgresql_with={"fillfactor": 50},
    )


def _relays(tables: MetaData) -> None:
    Table(
        "outbox_relays",
        tables,
        Column("relay_id", UUID(as_uuid=True), primary_key=True, comment="Made when the relay starts."),
        Column("name", Text, nullable=False, comment="host:pid, for people."),
        Column("version", Text, nullable=False, comment="The version of this package that it runs."),
        Column("sinks", ARRAY(Text), nullable=False, comment="The sinks that it serves."),
        _time("started_at", "When it started.", nullable=False, server_default=_NOW),
        _time(
            "expires_at",
            "Not counted among the living from then on. Moved by each heartbeat.",
            nullable=False,
        ),
        comment="The relays that live: they divide the lanes among them.",
        postgresql_with={"fillfactor": 50},
    )


def _sinks(tables: MetaData) -> None:
    Table(
        "outbox_sinks",
        tables,
        Column("sink", Text, primary_key=True, comment="The sink."),
        Column(
            "stuck_after", Interval, nullable=False, comment="How long past first_due_at a delivery is stuck."
        ),
        Column(
            "on_park",
            Text,
            nullable=False,
            comment="continue: a parked delivery's key goes on; hold: it waits.",
        ),
        _time("updated_at", "When a relay last wrote it.", nullable=False, server_default=_NOW),
        Column(
            "holds_ended",
            BigInteger,
            nullable=False,
            server_default=text("0"),
            comment="How often holds were ended by others than their lane's owner, who looks again "
            "from the beginning when it grows.",
        ),
        CheckConstraint("on_park IN ('continue', 'hold')", name="on_park_known"),
        comment="What all relays and the view need to know of a sink; written by each relay when it starts.",
    )


def _inbox(tables: MetaData) -> None:
    Table(
        "outbox_inbox",
        tables,
        Column("consumer", Text, primary_key=True, comment="Who acted on it; each consumer acts once."),
        Column(
            "message_id",
            UUID(as_uuid=True),
            primary_key=True,
            comment="The message that it acted on, from its header.",
        ),
        _time("received_at", "When that was recorded.", nullable=False, server_default=_NOW),
        CheckConstraint(f"octet_length(consumer) BETWEEN 1 AND {CONSUMER_BYTES}", name="consumer_length"),
        comment="What consumers have acted on, so that they drop what comes again; deleted by prune_inbox.",
    )
