"""Looks whether the older rows could be sent too."""

from __future__ import annotations

from outbox.migrate import steps

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

CHECKS = (
    "outbox_created_range",
    "outbox_available_range",
    "outbox_expires_range",
    "outbox_payload_length",
    "outbox_headers_length",
    "outbox_header_names",
)


def upgrade() -> None:
    steps.validate(*CHECKS)


def downgrade() -> None:
    steps.unvalidate(*CHECKS)
