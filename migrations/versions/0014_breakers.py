"""Relays tell which of their breakers are open, so that others can say it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column(
        "outbox_relays",
        sa.Column(
            "breakers",
            JSONB(),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
            comment="Which of its breakers are open, since when and why. Changes with them, at a heartbeat.",
        ),
    )


def downgrade() -> None:
    op.drop_column("outbox_relays", "breakers")
