"""A topic that was deleted and made anew has other records in the same places: the value tells them apart."""

from __future__ import annotations

import sqlalchemy as sa

from outbox.migrate import steps

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None

_NAME, _TABLE = "huleedu_parked_input_record", "huleedu_parked_input"


def upgrade() -> None:
    value = sa.text("md5(COALESCE(value, '\\x'::bytea))")
    steps.build_index(
        _NAME, _TABLE, ["consumer", "topic", "partition", "partition_offset", value], unique=True
    )


def downgrade() -> None:
    steps.drop_index(_NAME, _TABLE)
