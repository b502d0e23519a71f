"""Who takes part: relays and their lanes, sinks, consumers."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    Identity,
    Index,
    Interval,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from outbox.schema.columns import NOW, time
from outbox.schema.limits import CONSUMER_BYTES, LANES

_PAUSED_HASH = (
    "CASE WHEN key IS NULL THEN hashtextextended(destination, 0)"
    " ELSE hashtextextended(key, hashtextextended(destination, 0)) END"
)


def lanes(tables: MetaData) -> None:
    """Describes who owns which lane."""
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
        time("expires_at", "The lease: free from then on. Moved by each heartbeat."),
        CheckConstraint(f"lane BETWEEN 0 AND {LANES - 1}", name="lane_range"),
        CheckConstraint("(owner IS NULL) = (expires_at IS NULL)", name="owner_has_lease"),
        comment="Who owns which lane of which sink, and until when.",
        postgresql_with={"fillfactor": 50},
    )


def relays(tables: MetaData) -> None:
    """Describes the relays that live."""
    Table(
        "outbox_relays",
        tables,
        Column("relay_id", UUID(as_uuid=True), primary_key=True, comment="Made when the relay starts."),
        Column("name", Text, nullable=False, comment="host:pid, for people."),
        Column("version", Text, nullable=False, comment="The version of this package that it runs."),
        Column("sinks", ARRAY(Text), nullable=False, comment="The sinks that it serves."),
        time("started_at", "When it started.", nullable=False, server_default=NOW),
        time(
            "expires_at",
            "Not counted among the living from then on. Moved by each heartbeat.",
            nullable=False,
        ),
        Column(
            "breakers",
            JSONB,
            nullable=False,
            server_default=text("'[]'::jsonb"),
            comment="Which of its breakers are open, since when and why. Changes with them, at a heartbeat.",
        ),
        comment="The relays that live: they divide the lanes among them.",
        postgresql_with={"fillfactor": 50},
    )


def sinks(tables: MetaData) -> None:
    """Describes what is known of each sink."""
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
        time("updated_at", "When a relay last wrote it.", nullable=False, server_default=NOW),
        Column(
            "holds_ended",
            BigInteger,
            nullable=False,
            server_default=text("0"),
            comment="How often holds were ended by others than their lane's owner, who looks again "
            "from the beginning when it grows.",
        ),
        Column(
            "gap_note",
            Text,
            nullable=True,
            comment="What is sent to a destination when a delivery to it expires, is skipped or parked; "
            "null: nothing.",
        ),
        CheckConstraint("on_park IN ('continue', 'hold')", name="on_park_known"),
        comment="What all relays and the view need to know of a sink; written by each relay when it starts.",
    )


def pauses(tables: MetaData) -> None:
    """Describes what operators have paused."""
    Table(
        "outbox_pauses",
        tables,
        Column("id", BigInteger, Identity(always=True), primary_key=True, comment="Tells pauses apart."),
        Column("sink", Text, nullable=False, comment="The sink."),
        Column("destination", Text, comment="Only this one; null: all of the sink."),
        Column("key", Text, comment="Only this one of the destination; null: all of it."),
        Column(
            "hash",
            BigInteger,
            Computed(_PAUSED_HASH, persisted=True),
            comment="As destination_hash or key_hash in outbox_queue; null: all of the sink.",
        ),
        time("since", "When it was paused.", nullable=False, server_default=NOW),
        time("until", "It goes on by itself then; null: when somebody resumes it."),
        Column("reason", Text, comment="Why, in the words of who did it."),
        Column("paused_by", Text, nullable=False, comment="Who did it."),
        CheckConstraint("key IS NULL OR destination IS NOT NULL", name="key_of_destination"),
        Index(None, "sink"),
        comment="What operators have paused: nothing of it is fetched.",
    )


def inbox(tables: MetaData) -> None:
    """Describes what consumers have acted on."""
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
        time("received_at", "When that was recorded.", nullable=False, server_default=NOW),
        CheckConstraint(f"octet_length(consumer) BETWEEN 1 AND {CONSUMER_BYTES}", name="consumer_length"),
        # What a consumer may forget: without it, all of its records are read to find that none is old.
        Index(None, "consumer", "received_at"),
        comment="What consumers have acted on, so that they drop what comes again; deleted by prune_inbox.",
    )
