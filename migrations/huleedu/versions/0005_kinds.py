"""Parked input is counted by kind, and what is to be tried again is found."""

from __future__ import annotations

from outbox.migrate import steps

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    steps.build_index(
        "huleedu_parked_input_by_kind", "huleedu_parked_input", ["consumer", "kind", "retry_at"]
    )


def downgrade() -> None:
    steps.drop_index("huleedu_parked_input_by_kind", "huleedu_parked_input")
