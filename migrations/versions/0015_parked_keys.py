"""What is parked earlier of a key is found without reading what is parked of others."""

from __future__ import annotations

import sqlalchemy as sa

from outbox.migrate import steps

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | None = None
depends_on: str | None = None

NAME = "outbox_queue_parked_key"
# In other words than the other indexes of what is parked, so that none of them can be taken for it.
IS_PARKED = "coalesce(parked_at, '-infinity') > '-infinity'"


def upgrade() -> None:
    steps.build_index(NAME, "outbox_queue", ["key_hash", "id"], postgresql_where=sa.text(IS_PARKED))


def downgrade() -> None:
    steps.drop_index(NAME, "outbox_queue")
