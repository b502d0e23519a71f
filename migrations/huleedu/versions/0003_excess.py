"""The same text under another upload is told too, and RAS keeps what found no slot."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    # Two uploads of one text wait each for itself.
    op.drop_constraint("els_contents_batch_id_text_storage_id_key", "els_contents")
    op.create_table(
        "els_duplicates",
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch."),
        sa.Column("file_upload_id", sa.Text(), nullable=False, comment="The upload."),
        sa.Column(
            "told_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When its user was told which slot has its text.",
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["els_batches.batch_id"], name=op.f("els_duplicates_batch_id_fkey")
        ),
        sa.PrimaryKeyConstraint("batch_id", "file_upload_id", name=op.f("els_duplicates_pkey")),
        comment="Uploads of a text that had a slot already; each is told once.",
    )
    op.create_table(
        "ras_excess",
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch; perhaps not registered yet."),
        sa.Column("file_upload_id", sa.Text(), nullable=False, comment="The upload."),
        sa.Column("filename", sa.Text(), nullable=True, comment="As uploaded; null: no name."),
        sa.Column("text_storage_id", sa.Text(), nullable=False, comment="Where its text is."),
        sa.Column(
            "said_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="The time of the event that says so.",
        ),
        sa.PrimaryKeyConstraint("batch_id", "file_upload_id", name=op.f("ras_excess_pkey")),
        comment="What excess events say: uploads that found no slot.",
    )


def downgrade() -> None:
    op.drop_table("ras_excess")
    op.drop_table("els_duplicates")
    # Of a text that waits more than once, only the first upload was kept before.
    op.execute(
        "DELETE FROM els_contents later USING els_contents earlier WHERE later.batch_id = earlier.batch_id"
        " AND later.text_storage_id = earlier.text_storage_id AND later.id > earlier.id"
    )
    op.create_unique_constraint(
        "els_contents_batch_id_text_storage_id_key", "els_contents", ["batch_id", "text_storage_id"]
    )
