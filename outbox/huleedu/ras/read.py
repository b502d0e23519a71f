"""Reads everything known of a batch, in one statement, whatever its size."""

from __future__ import annotations

from itertools import chain
from typing import Any

from sqlalchemy import case, func, select, true
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.huleedu.ras.answer import BatchStatus, ExcessFile, batch_status
from outbox.huleedu.schema import ras_assessments, ras_batches, ras_excess, ras_slots, ras_spellchecks

_essay = (
    func.unnest(ras_batches.c.essay_ids)
    .table_valued("essay_id", with_ordinality="number", name="essay")
    .render_derived()
)


def _of_essay(table: Any) -> Any:
    return (table.c.batch_id == ras_batches.c.batch_id) & (table.c.essay_id == _essay.c.essay_id)


_KNOWN = (
    select(
        ras_batches.c.batch_id,
        ras_batches.c.user_id,
        ras_batches.c.student_prompt_ref,
        ras_batches.c.said_at.label("registered_at"),
        _essay.c.essay_id,
        (_essay.c.number - 1).label("position"),
        ras_slots.c.file_upload_id,
        ras_slots.c.filename,
        ras_slots.c.slot_index,
        ras_slots.c.said_at.label("assigned_at"),
        ras_spellchecks.c.status.label("spellcheck_status"),
        ras_spellchecks.c.correction_count,
        ras_spellchecks.c.corrected_text_storage_id,
        ras_spellchecks.c.error_detail,
        ras_spellchecks.c.said_at.label("spellchecked_at"),
        ras_assessments.c.rank,
        ras_assessments.c.score,
        ras_assessments.c.assignment_id,
        ras_assessments.c.said_at.label("assessed_at"),
    )
    .select_from(
        ras_batches.join(_essay, true())
        .outerjoin(ras_slots, _of_essay(ras_slots))
        .outerjoin(ras_spellchecks, _of_essay(ras_spellchecks))
        .outerjoin(ras_assessments, _of_essay(ras_assessments))
    )
    .order_by(_essay.c.number)
)


def _excess_of(batch_id: str) -> Any:
    """What found no slot, once: beside the first essay."""
    file = func.json_build_object(
        *chain.from_iterable((name, ras_excess.c[name]) for name in (*ExcessFile.model_fields, "said_at"))
    )
    in_order = aggregate_order_by(file, ras_excess.c.said_at, ras_excess.c.file_upload_id)
    files = select(func.json_agg(in_order)).where(ras_excess.c.batch_id == batch_id)
    return case((_essay.c.number == 1, files.scalar_subquery())).label("excess")


async def status_of(engine: AsyncEngine, batch_id: str) -> BatchStatus | None:
    """Returns how a batch is, or None before its registration."""
    async with engine.connect() as connection:
        known = _KNOWN.add_columns(_excess_of(batch_id)).where(ras_batches.c.batch_id == batch_id)
        rows = (await connection.execute(known)).all()
    return batch_status(rows) if rows else None
