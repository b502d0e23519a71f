"""Looks whether the older rows have such ids too."""

from __future__ import annotations

from outbox.migrate import steps

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    steps.validate("outbox_id_positive")


def downgrade() -> None:
    steps.unvalidate("outbox_id_positive")
