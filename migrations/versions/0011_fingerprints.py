"""What is parked is counted by its cause, without being read one by one."""

from __future__ import annotations

import sqlalchemy as sa

from outbox.migrate import steps

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | None = None
depends_on: str | None = None

NAME = "outbox_queue_fingerprint"


def upgrade() -> None:
    steps.build_index(
        NAME,
        "outbox_queue",
        ["sink", "fingerprint", "parked_at", "id"],
        postgresql_where=sa.text("parked_at IS NOT NULL"),
    )


def downgrade() -> None:
    steps.drop_index(NAME, "outbox_queue")
