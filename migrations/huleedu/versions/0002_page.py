"""The page: batches that were created and files that were uploaded on it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "page_batches",
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch."),
        sa.Column("user_id", sa.Text(), nullable=False, comment="Whose it is."),
        sa.Column("title", sa.Text(), nullable=True, comment="What its teacher calls it."),
        sa.Column("course_code", sa.Text(), nullable=True, comment="The course it is for."),
        sa.Column("slots", sa.Integer(), nullable=False, comment="How many essays it is for."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it was created.",
        ),
        sa.CheckConstraint("slots > 0", name=op.f("page_batches_has_slots")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("page_batches_pkey")),
        comment="Batches that were created on the page.",
    )
    op.create_index(op.f("page_batches_user_id"), "page_batches", ["user_id"])
    op.create_table(
        "page_files",
        sa.Column("file_upload_id", sa.UUID(), nullable=False, comment="The browser's id of the upload."),
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch."),
        sa.Column("name", sa.Text(), nullable=True, comment="What the file is called; null: nothing."),
        sa.Column("content", sa.LargeBinary(), nullable=False, comment="The file, as it came."),
        sa.Column("md5", sa.Text(), nullable=False, comment="Of the content, hexadecimal."),
        sa.Column("text", sa.Text(), nullable=False, comment="The text in it."),
        sa.Column("message_id", sa.UUID(), nullable=False, comment="The message that tells of it."),
        sa.Column("correlation_id", sa.UUID(), nullable=False, comment="Of all that follows from it."),
        sa.Column(
            "uploaded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it was stored.",
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["page_batches.batch_id"], name=op.f("page_files_batch_id_fkey")
        ),
        sa.PrimaryKeyConstraint("file_upload_id", name=op.f("page_files_pkey")),
        comment="Files that were uploaded on the page.",
    )
    op.create_index(op.f("page_files_batch_id"), "page_files", ["batch_id"])


def downgrade() -> None:
    op.drop_table("page_files")
    op.drop_table("page_batches")
