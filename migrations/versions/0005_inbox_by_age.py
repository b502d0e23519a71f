"""What a consumer may forget is found without reading what it may not."""

from __future__ import annotations

from outbox.migrate import steps

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

NAME = "outbox_inbox_consumer_received_at"


def upgrade() -> None:
    steps.build_index(NAME, "outbox_inbox", ["consumer", "received_at"])


def downgrade() -> None:
    steps.drop_index(NAME, "outbox_inbox")
