"""What the readers of a sink's destinations are told when a delivery is given up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column(
        "outbox_sinks",
        sa.Column(
            "gap_note",
            sa.Text(),
            nullable=True,
            comment="What is sent to a destination when a delivery to it expires, is skipped or parked; "
            "null: nothing.",
        ),
    )


def downgrade() -> None:
    op.drop_column("outbox_sinks", "gap_note")
