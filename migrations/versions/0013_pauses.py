"""What operators have paused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | None = None
depends_on: str | None = None

HASH = (
    "CASE WHEN key IS NULL THEN hashtextextended(destination, 0)"
    " ELSE hashtextextended(key, hashtextextended(destination, 0)) END"
)

# Each fetch of a relay reads it, and must not fail where the grants were not run again.
READ = """
DO $do$
DECLARE
    reader text;
BEGIN
    FOR reader IN
        SELECT DISTINCT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = 'outbox_sinks'::regclass AND privilege_type = 'SELECT'
    LOOP
        EXECUTE format('GRANT SELECT ON outbox_pauses TO %s', reader);
    END LOOP;
END
$do$
"""


def upgrade() -> None:
    op.create_table(
        "outbox_pauses",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Tells pauses apart."
        ),
        sa.Column("sink", sa.Text(), nullable=False, comment="The sink."),
        sa.Column("destination", sa.Text(), nullable=True, comment="Only this one; null: all of the sink."),
        sa.Column(
            "key", sa.Text(), nullable=True, comment="Only this one of the destination; null: all of it."
        ),
        sa.Column(
            "hash",
            sa.BigInteger(),
            sa.Computed(HASH, persisted=True),
            nullable=True,
            comment="As destination_hash or key_hash in outbox_queue; null: all of the sink.",
        ),
        sa.Column(
            "since",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it was paused.",
        ),
        sa.Column(
            "until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="It goes on by itself then; null: when somebody resumes it.",
        ),
        sa.Column("reason", sa.Text(), nullable=True, comment="Why, in the words of who did it."),
        sa.Column("paused_by", sa.Text(), nullable=False, comment="Who did it."),
        sa.CheckConstraint(
            "key IS NULL OR destination IS NOT NULL", name=op.f("outbox_pauses_key_of_destination")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_pauses_pkey")),
        comment="What operators have paused: nothing of it is fetched.",
    )
    op.create_index(op.f("outbox_pauses_sink"), "outbox_pauses", ["sink"])
    op.execute(READ)


def downgrade() -> None:
    op.drop_table("outbox_pauses")
