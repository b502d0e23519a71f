"""Whether a note waits at a destination is found without reading its messages."""

from __future__ import annotations

import sqlalchemy as sa

from outbox.migrate import steps

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    steps.build_index(
        "outbox_gap_note",
        "outbox",
        ["sink", "destination", "id"],
        postgresql_where=sa.text("type = 'outbox.gap_note'"),
    )


def downgrade() -> None:
    steps.drop_index("outbox_gap_note", "outbox")
