"""The place alone no longer makes a parked record the same as another one."""

from __future__ import annotations

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None

_NAME, _TABLE = "huleedu_parked_input_record_key", "huleedu_parked_input"


def upgrade() -> None:
    op.drop_constraint(_NAME, _TABLE)


def downgrade() -> None:
    # Of several records in one place the latest stays: its topic is the one that is there.
    op.execute(
        "DELETE FROM huleedu_parked_input AS older USING huleedu_parked_input AS newer"
        " WHERE (older.consumer, older.topic, older.partition, older.partition_offset)"
        " = (newer.consumer, newer.topic, newer.partition, newer.partition_offset) AND older.id < newer.id"
    )
    op.create_unique_constraint(_NAME, _TABLE, ["consumer", "topic", "partition", "partition_offset"])
