"""Parked input by kind, and what is to be tried again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column(
        "huleedu_parked_input",
        sa.Column(
            "kind",
            sa.Text(),
            server_default=sa.text("'unknown'"),
            nullable=False,
            comment="unreadable, refused, unsendable or unstorable; unknown: by an older consumer.",
        ),
    )
    op.add_column(
        "huleedu_parked_input",
        sa.Column(
            "retry_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Since when a person wants it to be tried again; null: nobody does.",
        ),
    )


def downgrade() -> None:
    op.drop_column("huleedu_parked_input", "retry_at")
    op.drop_column("huleedu_parked_input", "kind")
