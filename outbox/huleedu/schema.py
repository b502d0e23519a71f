"""The tables of ELS, RAS and the page, and of unusable input. Alembic compares this with the database.

They live beside the outbox's tables, which all of them use. Ids are others' and so text.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.schema import SchemaItem

VERSION_TABLE = "huleedu_alembic_version"
"""Alembic's own table for these migrations."""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "ix": "%(table_name)s_%(column_0_N_name)s",
    }
)

_NOW = text("clock_timestamp()")


def _moment(name: str, comment: str, **options: object) -> Column[object]:
    return Column(name, DateTime(timezone=True), comment=comment, **options)  # type: ignore[arg-type]  # options of any kind


def _id(name: str, comment: str, **options: object) -> Column[object]:
    return Column(name, Text, comment=comment, **options)  # type: ignore[arg-type]  # options of any kind


els_batches = Table(
    "els_batches",
    metadata,
    _id("batch_id", "The batch.", primary_key=True),
    _id("user_id", "Whose it is and who is notified; null: nobody.", nullable=True),
    Column("course_code", Text, comment="As registered.", nullable=True),
    Column("correlation_id", UUID(as_uuid=True), comment="Of its registration.", nullable=True),
    _moment("registered_at", "Null: its content came first; the row is there to be locked.", nullable=True),
    _moment("completed_at", "When its last slot was filled, which is told once.", nullable=True),
    CheckConstraint("completed_at IS NULL OR registered_at IS NOT NULL", name="complete_is_registered"),
    comment="Batches; who changes anything of one locks its row first.",
)

els_slots = Table(
    "els_slots",
    metadata,
    Column("batch_id", Text, ForeignKey(els_batches.c.batch_id), comment="The batch.", primary_key=True),
    Column(
        "slot_index",
        Integer,
        comment="Position in the registration's essay_ids, from zero.",
        primary_key=True,
        autoincrement=False,
    ),
    _id("essay_id", "The essay of this slot.", nullable=False),
    Column("state", Text, comment="free or assigned.", nullable=False, server_default=text("'free'")),
    _id("file_upload_id", "The upload that has it.", nullable=True),
    _id("text_storage_id", "Where the text of that upload is.", nullable=True),
    Column("original_file_name", Text, comment="As uploaded; null: no name.", nullable=True),
    _moment("assigned_at", "When it was assigned.", nullable=True),
    UniqueConstraint("batch_id", "essay_id"),
    UniqueConstraint("batch_id", "file_upload_id"),
    UniqueConstraint("batch_id", "text_storage_id"),
    CheckConstraint("slot_index >= 0", name="index_from_zero"),
    CheckConstraint(
        "state = 'free' AND num_nonnulls(file_upload_id, text_storage_id, assigned_at) = 0"
        " OR state = 'assigned' AND num_nulls(file_upload_id, text_storage_id, assigned_at) = 0",
        name="assigned_has_content",
    ),
    comment="The slots of each batch.",
)

els_contents = Table(
    "els_contents",
    metadata,
    Column("id", BigInteger, Identity(always=True), comment="The order of arrival.", primary_key=True),
    Column("batch_id", Text, ForeignKey(els_batches.c.batch_id), comment="The batch.", nullable=False),
    _id("file_upload_id", "The upload.", nullable=False),
    _id("text_storage_id", "Where its text is.", nullable=False),
    Column("state", Text, comment="waiting for its batch, or excess: no slot was left.", nullable=False),
    Column("event", JSONB, comment="All that was said of it.", nullable=False),
    _moment("received_at", "When it came.", nullable=False, server_default=_NOW),
    UniqueConstraint("batch_id", "file_upload_id"),
    CheckConstraint("state IN ('waiting', 'excess')", name="state_known"),
    comment="Content without a slot: that came before its batch, or found no slot left.",
)

els_duplicates = Table(
    "els_duplicates",
    metadata,
    Column("batch_id", Text, ForeignKey(els_batches.c.batch_id), comment="The batch.", primary_key=True),
    _id("file_upload_id", "The upload.", primary_key=True),
    _moment(
        "told_at", "When its user was told which slot has its text.", nullable=False, server_default=_NOW
    ),
    comment="Uploads of a text that had a slot already; each is told once.",
)

ras_batches = Table(
    "ras_batches",
    metadata,
    _id("batch_id", "The batch.", primary_key=True),
    _id("user_id", "Whose it is; null: nobody said.", nullable=True),
    Column("essay_ids", ARRAY(Text), comment="Its essays, in the order of their slots.", nullable=False),
    Column("student_prompt_ref", JSON(none_as_null=True), comment="Where the task's text is.", nullable=True),
    _moment("said_at", "When it was registered, by the event's clock.", nullable=False),
    CheckConstraint("cardinality(essay_ids) > 0", name="has_essays"),
    comment="What registrations say; a batch that is not here is not told of.",
)


def _said_of_essay(name: str, *columns: SchemaItem, comment: str) -> Table:
    return Table(
        name,
        metadata,
        _id("batch_id", "The batch; perhaps not registered yet.", primary_key=True),
        _id("essay_id", "The essay.", primary_key=True),
        *columns,
        _moment("said_at", "The time of the event that says so; the latest counts.", nullable=False),
        Column("event_id", UUID(as_uuid=True), comment="That event; decides between equals.", nullable=False),
        comment=comment,
    )


ras_slots = _said_of_essay(
    "ras_slots",
    _id("file_upload_id", "The upload that has its slot.", nullable=False),
    Column("filename", Text, comment="As uploaded; null: no name.", nullable=True),
    Column("slot_index", Integer, comment="From zero; null: the event did not say.", nullable=True),
    comment="What slot events say of each essay.",
)

ras_spellchecks = _said_of_essay(
    "ras_spellchecks",
    Column("status", Text, comment="completed or failed.", nullable=False),
    Column("correction_count", Integer, comment="Corrections made.", nullable=True),
    _id("corrected_text_storage_id", "Where the corrected text is.", nullable=True),
    Column("error_detail", JSON(none_as_null=True), comment="What went wrong.", nullable=True),
    CheckConstraint("status IN ('completed', 'failed')", name="status_known"),
    comment="What spellcheck results say of each essay.",
)

ras_assessments = _said_of_essay(
    "ras_assessments",
    Column("rank", Integer, comment="Its place in the batch, from one.", nullable=True),
    Column("score", Double, comment="Its Bradley-Terry score.", nullable=True),
    _id("assignment_id", "The assignment that its batch was assessed for.", nullable=True),
    comment="What assessment results say of each essay, anchors left out.",
)

ras_excess = Table(
    "ras_excess",
    metadata,
    _id("batch_id", "The batch; perhaps not registered yet.", primary_key=True),
    _id("file_upload_id", "The upload.", primary_key=True),
    Column("filename", Text, comment="As uploaded; null: no name.", nullable=True),
    _id("text_storage_id", "Where its text is.", nullable=False),
    _moment("said_at", "The time of the event that says so.", nullable=False),
    comment="What excess events say: uploads that found no slot.",
)

page_batches = Table(
    "page_batches",
    metadata,
    _id("batch_id", "The batch.", primary_key=True),
    _id("user_id", "Whose it is.", nullable=False, index=True),
    Column("title", Text, comment="What its teacher calls it.", nullable=True),
    Column("course_code", Text, comment="The course it is for.", nullable=True),
    Column("slots", Integer, comment="How many essays it is for.", nullable=False),
    _moment("created_at", "When it was created.", nullable=False, server_default=_NOW),
    CheckConstraint("slots > 0", name="has_slots"),
    comment="Batches that were created on the page.",
)

page_files = Table(
    "page_files",
    metadata,
    Column("file_upload_id", UUID(as_uuid=True), comment="The browser's id of the upload.", primary_key=True),
    Column(
        "batch_id",
        Text,
        ForeignKey(page_batches.c.batch_id),
        comment="The batch.",
        nullable=False,
        index=True,
    ),
    Column("name", Text, comment="What the file is called; null: nothing.", nullable=True),
    Column("content", LargeBinary, comment="The file, as it came.", nullable=False),
    Column("md5", Text, comment="Of the content, hexadecimal.", nullable=False),
    Column("text", Text, comment="The text in it.", nullable=False),
    Column("message_id", UUID(as_uuid=True), comment="The message that tells of it.", nullable=False),
    Column("correlation_id", UUID(as_uuid=True), comment="Of all that follows from it.", nullable=False),
    _moment("uploaded_at", "When it was stored.", nullable=False, server_default=_NOW),
    comment="Files that were uploaded on the page.",
)

parked_input = Table(
    "huleedu_parked_input",
    metadata,
    Column("id", BigInteger, Identity(always=True), comment="In the order of parking.", primary_key=True),
    Column("consumer", Text, comment="The consumer group that could not use it.", nullable=False),
    Column("topic", Text, comment="The topic it was in.", nullable=False),
    Column("partition", Integer, comment="The partition.", nullable=False),
    Column("partition_offset", BigInteger, comment="The offset in it.", nullable=False),
    Column("key", LargeBinary, comment="The record's key, as it came.", nullable=True),
    Column("value", LargeBinary, comment="The record's value, as it came.", nullable=True),
    Column("headers", JSONB, comment="The record's headers, as far as they are text.", nullable=False),
    Column("reason", Text, comment="Why it could not be used, for a person.", nullable=False),
    _moment("parked_at", "When it was parked.", nullable=False, server_default=_NOW),
    Column(
        "kind",
        Text,
        comment="unreadable, refused, unsendable or unstorable; unknown: by an older consumer.",
        nullable=False,
        server_default=text("'unknown'"),
    ),
    _moment("retry_at", "Since when a person wants it to be tried again; null: nobody does.", nullable=True),
    Index("huleedu_parked_input_by_kind", "consumer", "kind", "retry_at"),
    # A topic that was deleted and made anew has other records in the same places.
    Index(
        "huleedu_parked_input_record",
        "consumer",
        "topic",
        "partition",
        "partition_offset",
        text("md5(COALESCE(value, '\\x'::bytea))"),
        unique=True,
    ),
    comment="Input that no retry would make usable; a person decides.",
)

TABLES = frozenset(metadata.tables)
