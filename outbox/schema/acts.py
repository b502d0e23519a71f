"""What operators do: operations that relays carry out, and the record of all acts."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from outbox.schema.columns import NOW, time

_COUNTS = {
    "rows": "Deliveries changed, or written again, so far.",
    "left_out": "Left alone so far: an earlier one of their key is parked, or they cannot be written.",
    "busy": "Left alone so far: somebody else was at them.",
    "uncertain": "Changed ones that may have arrived all the same, so far.",
}


def operations(tables: MetaData) -> None:
    """Describes acts upon many deliveries."""
    Table(
        "outbox_operations",
        tables,
        Column("id", BigInteger, Identity(always=True), primary_key=True, comment="Names it."),
        Column("act", Text, nullable=False, comment="retry, skip, park or replay."),
        Column("selection", JSONB, nullable=False, comment="Upon which deliveries: what was asked for."),
        Column("options", JSONB, nullable=False, comment="How."),
        Column("up_to", BigInteger, nullable=False, comment="The newest id when it was asked: none above."),
        Column(
            "ids",
            ARRAY(BigInteger),
            comment="Where they were few, just these, until it ends; null: all that match.",
        ),
        Column("expected", BigInteger, comment="How many matched; null: too many to count."),
        Column("replay_id", UUID(as_uuid=True), comment="Of a replay: that of the rows it writes."),
        time("asked_at", "When it was asked.", nullable=False, server_default=NOW),
        Column("asked_by", Text, nullable=False, comment="As which role of the database."),
        Column(
            "sink",
            Text,
            nullable=False,
            server_default=text("''"),
            comment="With reached: how far it is. Both move with each batch, in its transaction.",
        ),
        Column("reached", BigInteger, nullable=False, comment="The last id that was looked at. See sink."),
        *(
            Column(name, BigInteger, nullable=False, server_default=text("0"), comment=comment)
            for name, comment in _COUNTS.items()
        ),
        time("next_at", "No batch before that. Moved by each.", nullable=False, server_default=NOW),
        Column("trouble", Text, comment="Why the last batch failed; null: it did not."),
        time("ended_at", "When it ended; null: it goes on."),
        Column(
            "cancelled",
            Boolean,
            nullable=False,
            server_default=text("false"),
            comment="Whether somebody ended it.",
        ),
        CheckConstraint("act IN ('retry', 'skip', 'park', 'replay')", name="act_known"),
        Index("outbox_operations_open", "id", postgresql_where=text("ended_at IS NULL")),
        comment="Acts upon many deliveries, which relays carry out batch by batch.",
    )


def acts(tables: MetaData) -> None:
    """Describes the record of what was done, and by whom."""
    Table(
        "outbox_acts",
        tables,
        Column("id", BigInteger, Identity(always=True), primary_key=True, comment="The order."),
        time("at", "When.", nullable=False, server_default=NOW),
        Column("act", Text, nullable=False, comment="What: retry, skip, park, replay, pause and so on."),
        Column("phase", Text, nullable=False, comment="asked; or done, cancelled: what came of it."),
        Column("operation", BigInteger, comment="The operation; null: it was done at once."),
        Column("role", Text, nullable=False, comment="Who: the role of the database that logged in."),
        Column("os_user", Text, comment="Who: on the machine, as that says."),
        Column("login", Text, comment="Who: on the page, as that says."),
        Column("reason", Text, comment="Why, in the words of who did it."),
        Column("selection", JSONB, comment="Upon what, and how."),
        Column("before", JSONB, comment="How that was."),
        Column("after", JSONB, comment="What came of it."),
        Index("outbox_acts_operation", "operation"),
        comment="What operators did. Nobody changes it; its functions write it.",
    )
