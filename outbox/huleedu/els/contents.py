"""ELS's statements about content without a slot: it waits for its batch, found none left, or repeats a text.

Each is in the caller's transaction, and for any number of batches at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text

from outbox.huleedu.els.board import Slot
from outbox.huleedu.els.store import Transaction
from outbox.huleedu.events import EssayContentProvisionedV1
from outbox.huleedu.schema import els_contents as contents

Upload = tuple[str, str]
"""A batch, and an upload to it."""


async def keep(
    session: Transaction, given: Sequence[EssayContentProvisionedV1], state: str
) -> dict[Upload, datetime]:
    """Keeps contents without a slot, as `waiting` or `excess`; returns since when, of those that are new."""
    columns = {
        "state": state,
        "batches": [each.entity_id for each in given],
        "uploads": [each.file_upload_id for each in given],
        "texts": [each.text_storage_id for each in given],
        "events": [each.model_dump_json() for each in given],
    }
    kept = await session.execute(_KEEP, columns)
    return {(row.batch_id, row.file_upload_id): row.received_at for row in kept}


_KEEP = text("""
    INSERT INTO els_contents (batch_id, file_upload_id, text_storage_id, state, event)
    SELECT batch_id, file_upload_id, text_storage_id, :state, event::jsonb
    FROM unnest(
        CAST(:batches AS text[]), CAST(:uploads AS text[]), CAST(:texts AS text[]), CAST(:events AS text[])
    ) WITH ORDINALITY AS given (batch_id, file_upload_id, text_storage_id, event, position)
    ORDER BY position
    ON CONFLICT DO NOTHING
    RETURNING batch_id, file_upload_id, received_at
""")


class Duplicate(NamedTuple):
    """An upload of a text that has a slot already."""

    assigned_at: datetime
    """Since when it has it."""
    told_at: datetime


async def keep_duplicates(
    session: Transaction, given: Sequence[tuple[Slot, EssayContentProvisionedV1]]
) -> dict[Upload, Duplicate]:
    """Records which uploads have a text that has its slot under another; returns those that are new."""
    columns = {
        "batches": [slot.batch_id for slot, _ in given],
        "indexes": [slot.slot_index for slot, _ in given],
        "uploads": [content.file_upload_id for _, content in given],
    }
    kept = await session.execute(_KEEP_DUPLICATES, columns)
    return {(row.batch_id, row.file_upload_id): Duplicate(row.assigned_at, row.told_at) for row in kept}


_KEEP_DUPLICATES = text("""
    WITH given AS MATERIALIZED (
        SELECT DISTINCT ON (batch_id, file_upload_id) *
        FROM unnest(CAST(:batches AS text[]), CAST(:indexes AS integer[]), CAST(:uploads AS text[]))
            AS given (batch_id, slot_index, file_upload_id)
    ), kept AS (
        INSERT INTO els_duplicates (batch_id, file_upload_id) SELECT batch_id, file_upload_id FROM given
        ON CONFLICT DO NOTHING
        RETURNING batch_id, file_upload_id, told_at
    )
    SELECT kept.batch_id, kept.file_upload_id, els_slots.assigned_at, kept.told_at
    FROM kept
    JOIN given USING (batch_id, file_upload_id)
    JOIN els_slots ON els_slots.batch_id = given.batch_id AND els_slots.slot_index = given.slot_index
""")


async def take_waiting(session: Transaction, batch_ids: Iterable[str]) -> list[EssayContentProvisionedV1]:
    """Returns the content that waits for these batches, in the order in which it came; it waits no longer."""
    taken = await session.execute(
        contents.delete()
        .where(contents.c.batch_id.in_(batch_ids), contents.c.state == "waiting")
        .returning(contents.c.id, contents.c.event)
    )
    return [EssayContentProvisionedV1.model_validate(event) for _, event in sorted(map(tuple, taken))]


async def waiting(session: Transaction) -> tuple[int, float]:
    """Returns how much content waits for its batch, and for how many seconds the oldest has waited."""
    row = (await session.execute(_WAITING)).one()
    return row.number, row.seconds


_WAITING = text("""
    SELECT count(*) AS number,
        coalesce(extract(epoch FROM clock_timestamp() - min(received_at)), 0)::float AS seconds
    FROM els_contents WHERE state = 'waiting'
""")
