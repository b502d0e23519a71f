"""What relays remember of their look through the tables: how far they are, and what does not fit together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "outbox_walks",
        sa.Column("walk", sa.Text(), nullable=False, comment="Through which table: outbox or outbox_queue."),
        sa.Column(
            "sink",
            sa.Text(),
            server_default=sa.text("''"),
            nullable=False,
            comment="With lane and id: the last row that was looked at; of outbox the id alone counts.",
        ),
        sa.Column(
            "lane", sa.SmallInteger(), server_default=sa.text("0"), nullable=False, comment="See sink."
        ),
        sa.Column("id", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="See sink."),
        sa.Column(
            "ended_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it last came to the end, to begin anew; null: never.",
        ),
        sa.PrimaryKeyConstraint("walk", name=op.f("outbox_walks_pkey")),
        comment="How far relays have looked for rows that do not fit together.",
    )
    op.create_table(
        "outbox_amiss",
        sa.Column("sink", sa.Text(), nullable=False, comment="As in outbox or outbox_queue."),
        sa.Column(
            "lane",
            sa.SmallInteger(),
            autoincrement=False,
            nullable=False,
            comment="As in outbox or outbox_queue.",
        ),
        sa.Column(
            "id",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="The row of outbox or outbox_queue.",
        ),
        sa.Column(
            "found_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When a relay found it.",
        ),
        sa.PrimaryKeyConstraint("sink", "lane", "id", name=op.f("outbox_amiss_pkey")),
        comment="Rows that did not fit together when a relay looked, the first 10,000; status looks again.",
    )
    for table in ("outbox_walks", "outbox_amiss"):
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)"
        )


def downgrade() -> None:
    op.drop_table("outbox_amiss")
    op.drop_table("outbox_walks")
