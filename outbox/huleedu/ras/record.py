"""What RAS makes of each event: it keeps what the event says, whatever else is known.

What different topics say is kept in different tables. Of two events that say something of the same essay
the later one counts, by their own times and not by when they came; so every order of arrival ends alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table, func, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.huleedu.consume import Handler
from outbox.huleedu.errors import Unacceptable
from outbox.huleedu.events import (
    ASSESSMENT_PUBLISHED,
    ESSAYS_REGISTERED,
    EXCESS_CONTENT,
    SLOT_ASSIGNED,
    SPELLCHECK_RESULTS,
    UNKNOWN,
    AssessmentResultV1,
    BatchEssaysRegistered,
    EssaySlotAssignedV1,
    EventEnvelope,
    ExcessContentProvisionedV1,
    SpellcheckResultV1,
)
from outbox.huleedu.schema import ras_assessments, ras_batches, ras_excess, ras_slots, ras_spellchecks


async def registered(connection: AsyncConnection, event: EventEnvelope[BatchEssaysRegistered]) -> str:
    """Keeps a registered batch; a repeated registration changes nothing, but can bring what was missing."""
    data = event.data
    essay_ids = list(data.essay_ids)
    new = insert(ras_batches).values(
        batch_id=data.entity_id,
        user_id=data.user_id,
        essay_ids=essay_ids,
        student_prompt_ref=data.student_prompt_ref,
        said_at=event.event_timestamp,
    )
    known, said = ras_batches.c, new.excluded
    kept = await connection.execute(
        new.on_conflict_do_update(
            index_elements=[known.batch_id],
            set_={
                "user_id": func.coalesce(known.user_id, said.user_id),
                "student_prompt_ref": func.coalesce(known.student_prompt_ref, said.student_prompt_ref),
                "said_at": func.least(known.said_at, said.said_at),
            },
        ).returning(known.user_id, known.essay_ids)
    )
    batch = kept.one()
    if batch.essay_ids != essay_ids:
        raise Unacceptable("the batch is registered already, with other essays")
    if data.user_id not in (None, batch.user_id):
        raise Unacceptable("the batch is registered already, with another user")
    return "applied"


async def slot_assigned(connection: AsyncConnection, event: EventEnvelope[EssaySlotAssignedV1]) -> str:
    """Keeps which upload an essay came from."""
    data, name = event.data, event.data.original_file_name
    return await _keep(
        connection,
        ras_slots,
        event,
        {
            "batch_id": data.batch_id,
            "essay_id": data.essay_id,
            "file_upload_id": data.file_upload_id,
            "filename": None if name == UNKNOWN else name,
            "slot_index": data.slot_index,
        },
    )


async def excess(connection: AsyncConnection, event: EventEnvelope[ExcessContentProvisionedV1]) -> str:
    """Keeps which upload found no slot. No slot is ever given back, so nothing later changes that."""
    data, name = event.data, event.data.original_file_name
    kept = await connection.execute(
        insert(ras_excess)
        .values(
            batch_id=data.batch_id,
            file_upload_id=data.file_upload_id,
            filename=None if name == UNKNOWN else name,
            text_storage_id=data.text_storage_id,
            said_at=event.event_timestamp,
        )
        .on_conflict_do_nothing()
    )
    return "applied" if kept.rowcount else "outdated"


async def spellchecked(connection: AsyncConnection, event: EventEnvelope[SpellcheckResultV1]) -> str:
    """Keeps what the spellcheck found of an essay."""
    data = event.data
    return await _keep(
        connection,
        ras_spellchecks,
        event,
        {
            "batch_id": data.batch_id,
            "essay_id": data.entity_id,
            "status": "completed" if data.succeeded else "failed",
            "correction_count": data.corrections_made,
            "corrected_text_storage_id": data.corrected_text_storage_id,
            "error_detail": data.error_info,
        },
    )


async def assessed(connection: AsyncConnection, event: EventEnvelope[AssessmentResultV1]) -> str:
    """Keeps what the comparison found of each essay, anchors left out."""
    data = event.data
    results = {
        result.essay_id: {
            "batch_id": data.batch_id,
            "essay_id": result.essay_id,
            "rank": result.rank,
            "score": result.bt_score,
            "assignment_id": data.assignment_id,
        }
        for result in data.essay_results
        if not result.is_anchor
    }
    # In one order, so that two events of a batch cannot wait for each other.
    return await _keep(connection, ras_assessments, event, *(results[each] for each in sorted(results)))


async def _keep(
    connection: AsyncConnection, table: Table, event: EventEnvelope[Any], *rows: Mapping[str, Any]
) -> str:
    """Keeps what an event says of essays, where nothing later is known; returns `applied` or `outdated`."""
    if not rows:
        return "applied"
    when = {"said_at": event.event_timestamp, "event_id": event.event_id}
    new = insert(table).values([{**row, **when} for row in rows])
    known, said = table.c, new.excluded
    kept = await connection.execute(
        new.on_conflict_do_update(
            index_elements=[known.batch_id, known.essay_id],
            set_={column.name: said[column.name] for column in known if not column.primary_key},
            where=tuple_(said.said_at, said.event_id) > tuple_(known.said_at, known.event_id),
        )
    )
    return "applied" if kept.rowcount else "outdated"


HANDLERS: Sequence[Handler[Any]] = (
    Handler(ESSAYS_REGISTERED, BatchEssaysRegistered, registered),
    Handler(SLOT_ASSIGNED, EssaySlotAssignedV1, slot_assigned),
    Handler(EXCESS_CONTENT, ExcessContentProvisionedV1, excess),
    Handler(SPELLCHECK_RESULTS, SpellcheckResultV1, spellchecked),
    Handler(ASSESSMENT_PUBLISHED, AssessmentResultV1, assessed),
)
