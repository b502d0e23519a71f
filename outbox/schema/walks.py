"""How far relays have looked through the tables for what does not fit together, and what they found."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, MetaData, SmallInteger, Table, Text, text

from outbox.schema.columns import NOW, time


def walks(tables: MetaData) -> None:
    """Describes how far the walks are."""
    Table(
        "outbox_walks",
        tables,
        Column("walk", Text, primary_key=True, comment="Through which table: outbox or outbox_queue."),
        Column(
            "sink",
            Text,
            nullable=False,
            server_default=text("''"),
            comment="With lane and id: the last row that was looked at; of outbox the id alone counts.",
        ),
        Column("lane", SmallInteger, nullable=False, server_default=text("0"), comment="See sink."),
        Column("id", BigInteger, nullable=False, server_default=text("0"), comment="See sink."),
        time("ended_at", "When it last came to the end, to begin anew; null: never."),
        comment="How far relays have looked for rows that do not fit together.",
    )


def amiss(tables: MetaData) -> None:
    """Describes what the walks found."""
    Table(
        "outbox_amiss",
        tables,
        Column("sink", Text, primary_key=True, comment="As in outbox or outbox_queue."),
        Column(
            "lane",
            SmallInteger,
            primary_key=True,
            autoincrement=False,
            comment="As in outbox or outbox_queue.",
        ),
        Column(
            "id",
            BigInteger,
            primary_key=True,
            autoincrement=False,
            comment="The row of outbox or outbox_queue.",
        ),
        time("found_at", "When a relay found it.", nullable=False, server_default=NOW),
        comment="Rows that did not fit together when a relay looked, the first 10,000; status looks again.",
    )
