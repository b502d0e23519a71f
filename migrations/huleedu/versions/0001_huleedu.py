"""ELS, RAS, and the input that neither could use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "els_batches",
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch."),
        sa.Column(
            "user_id", sa.Text(), nullable=True, comment="Whose it is and who is notified; null: nobody."
        ),
        sa.Column("course_code", sa.Text(), nullable=True, comment="As registered."),
        sa.Column("correlation_id", sa.UUID(), nullable=True, comment="Of its registration."),
        sa.Column(
            "registered_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Null: its content came first; the row is there to be locked.",
        ),
        sa.Column(
            "completed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its last slot was filled, which is told once.",
        ),
        sa.CheckConstraint(
            "completed_at IS NULL OR registered_at IS NOT NULL",
            name=op.f("els_batches_complete_is_registered"),
        ),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("els_batches_pkey")),
        comment="Batches; who changes anything of one locks its row first.",
    )
    op.create_table(
        "huleedu_parked_input",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="In the order of parking.",
        ),
        sa.Column("consumer", sa.Text(), nullable=False, comment="The consumer group that could not use it."),
        sa.Column("topic", sa.Text(), nullable=False, comment="The topic it was in."),
        sa.Column("partition", sa.Integer(), nullable=False, comment="The partition."),
        sa.Column("partition_offset", sa.BigInteger(), nullable=False, comment="The offset in it."),
        sa.Column("key", sa.LargeBinary(), nullable=True, comment="The record's key, as it came."),
        sa.Column("value", sa.LargeBinary(), nullable=True, comment="The record's value, as it came."),
        sa.Column(
            "headers",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="The record's headers, as far as they are text.",
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="Why it could not be used, for a person."),
        sa.Column(
            "parked_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it was parked.",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("huleedu_parked_input_pkey")),
        sa.UniqueConstraint(
            "consumer", "topic", "partition", "partition_offset", name="huleedu_parked_input_record_key"
        ),
        comment="Input that no retry would make usable; a person decides.",
    )
    op.create_table(
        "ras_assessments",
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch; perhaps not registered yet."),
        sa.Column("essay_id", sa.Text(), nullable=False, comment="The essay."),
        sa.Column("rank", sa.Integer(), nullable=True, comment="Its place in the batch, from one."),
        sa.Column("score", sa.Double(), nullable=True, comment="Its Bradley-Terry score."),
        sa.Column(
            "assignment_id",
            sa.Text(),
            nullable=True,
            comment="The assignment that its batch was assessed for.",
        ),
        sa.Column(
            "said_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="The time of the event that says so; the latest counts.",
        ),
        sa.Column("event_id", sa.UUID(), nullable=False, comment="That event; decides between equals."),
        sa.PrimaryKeyConstraint("batch_id", "essay_id", name=op.f("ras_assessments_pkey")),
        comment="What assessment results say of each essay, anchors left out.",
    )
    op.create_table(
        "ras_batches",
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch."),
        sa.Column("user_id", sa.Text(), nullable=True, comment="Whose it is; null: nobody said."),
        sa.Column(
            "essay_ids",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="Its essays, in the order of their slots.",
        ),
        sa.Column(
            "student_prompt_ref",
            sa.JSON(none_as_null=True),
            nullable=True,
            comment="Where the task's text is.",
        ),
        sa.Column(
            "said_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was registered, by the event's clock.",
        ),
        sa.CheckConstraint("cardinality(essay_ids) > 0", name=op.f("ras_batches_has_essays")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("ras_batches_pkey")),
        comment="What registrations say; a batch that is not here is not told of.",
    )
    op.create_table(
        "ras_slots",
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch; perhaps not registered yet."),
        sa.Column("essay_id", sa.Text(), nullable=False, comment="The essay."),
        sa.Column("file_upload_id", sa.Text(), nullable=False, comment="The upload that has its slot."),
        sa.Column("filename", sa.Text(), nullable=True, comment="As uploaded; null: no name."),
        sa.Column(
            "slot_index", sa.Integer(), nullable=True, comment="From zero; null: the event did not say."
        ),
        sa.Column(
            "said_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="The time of the event that says so; the latest counts.",
        ),
        sa.Column("event_id", sa.UUID(), nullable=False, comment="That event; decides between equals."),
        sa.PrimaryKeyConstraint("batch_id", "essay_id", name=op.f("ras_slots_pkey")),
        comment="What slot events say of each essay.",
    )
    op.create_table(
        "ras_spellchecks",
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch; perhaps not registered yet."),
        sa.Column("essay_id", sa.Text(), nullable=False, comment="The essay."),
        sa.Column("status", sa.Text(), nullable=False, comment="completed or failed."),
        sa.Column("correction_count", sa.Integer(), nullable=True, comment="Corrections made."),
        sa.Column(
            "corrected_text_storage_id", sa.Text(), nullable=True, comment="Where the corrected text is."
        ),
        sa.Column("error_detail", sa.JSON(none_as_null=True), nullable=True, comment="What went wrong."),
        sa.Column(
            "said_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="The time of the event that says so; the latest counts.",
        ),
        sa.Column("event_id", sa.UUID(), nullable=False, comment="That event; decides between equals."),
        sa.CheckConstraint("status IN ('completed', 'failed')", name=op.f("ras_spellchecks_status_known")),
        sa.PrimaryKeyConstraint("batch_id", "essay_id", name=op.f("ras_spellchecks_pkey")),
        comment="What spellcheck results say of each essay.",
    )
    op.create_table(
        "els_contents",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="The order of arrival."
        ),
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch."),
        sa.Column("file_upload_id", sa.Text(), nullable=False, comment="The upload."),
        sa.Column("text_storage_id", sa.Text(), nullable=False, comment="Where its text is."),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="waiting for its batch, or excess: no slot was left."
        ),
        sa.Column(
            "event",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="All that was said of it.",
        ),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it came.",
        ),
        sa.CheckConstraint("state IN ('waiting', 'excess')", name=op.f("els_contents_state_known")),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["els_batches.batch_id"], name=op.f("els_contents_batch_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("els_contents_pkey")),
        sa.UniqueConstraint(
            "batch_id", "file_upload_id", name=op.f("els_contents_batch_id_file_upload_id_key")
        ),
        sa.UniqueConstraint(
            "batch_id", "text_storage_id", name=op.f("els_contents_batch_id_text_storage_id_key")
        ),
        comment="Content without a slot: that came before its batch, or found no slot left.",
    )
    op.create_table(
        "els_slots",
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch."),
        sa.Column(
            "slot_index",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="Position in the registration's essay_ids, from zero.",
        ),
        sa.Column("essay_id", sa.Text(), nullable=False, comment="The essay of this slot."),
        sa.Column(
            "state", sa.Text(), server_default=sa.text("'free'"), nullable=False, comment="free or assigned."
        ),
        sa.Column("file_upload_id", sa.Text(), nullable=True, comment="The upload that has it."),
        sa.Column("text_storage_id", sa.Text(), nullable=True, comment="Where the text of that upload is."),
        sa.Column("original_file_name", sa.Text(), nullable=True, comment="As uploaded; null: no name."),
        sa.Column("assigned_at", sa.DateTime(timezone=True), nullable=True, comment="When it was assigned."),
        sa.CheckConstraint(
            "state = 'free' AND num_nonnulls(file_upload_id, text_storage_id, assigned_at) = 0 OR state = 'assigned' AND num_nulls(file_upload_id, text_storage_id, assigned_at) = 0",
            name=op.f("els_slots_assigned_has_content"),
        ),
        sa.CheckConstraint("slot_index >= 0", name=op.f("els_slots_index_from_zero")),
        sa.ForeignKeyConstraint(["batch_id"], ["els_batches.batch_id"], name=op.f("els_slots_batch_id_fkey")),
        sa.PrimaryKeyConstraint("batch_id", "slot_index", name=op.f("els_slots_pkey")),
        sa.UniqueConstraint("batch_id", "essay_id", name=op.f("els_slots_batch_id_essay_id_key")),
        sa.UniqueConstraint("batch_id", "file_upload_id", name=op.f("els_slots_batch_id_file_upload_id_key")),
        sa.UniqueConstraint(
            "batch_id", "text_storage_id", name=op.f("els_slots_batch_id_text_storage_id_key")
        ),
        comment="The slots of each batch.",
    )


def downgrade() -> None:
    op.drop_table("els_slots")
    op.drop_table("els_contents")
    op.drop_table("ras_spellchecks")
    op.drop_table("ras_slots")
    op.drop_table("ras_batches")
    op.drop_table("ras_assessments")
    op.drop_table("huleedu_parked_input")
    op.drop_table("els_batches")
