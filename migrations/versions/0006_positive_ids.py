"""Refuses an id that no walk would find: they begin at zero, and read on from there."""

from __future__ import annotations

from outbox.migrate import steps

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    steps.add_check("outbox_id_positive", "id > 0")


def downgrade() -> None:
    steps.drop_check("outbox_id_positive")
