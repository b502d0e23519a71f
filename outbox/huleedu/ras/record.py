"""What RAS makes of each event: it keeps what the event says, whatever else is known.

What different topics say is kept in different tables. Of two events that say something of the same essay
the later one counts, by their own times and not by when they came; so every order of arrival ends alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.huleedu.consume import Effect, Handler, Incoming
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
    ExcessContentProvisionedV1,
    SpellcheckResultV1,
)

Row = Mapping[str, Any]
Key = tuple[str, str]
_APPLIED, _OUTDATED = Effect("applied"), Effect("outdated")


async def registered(
    connection: AsyncConnection, events: Sequence[Incoming[BatchEssaysRegistered]]
) -> Sequence[Effect]:
    """Keeps registered batches; a repeated registration changes nothing, but can bring what was missing."""
    folded: dict[str, dict[str, Any]] = {}
    for each in events:
        _fold(folded.setdefault(each.data.entity_id, {}), each)
    rows = [{**row, "essay_ids": json.dumps(row["essay_ids"])} for row in folded.values()]
    kept = {row.batch_id: row for row in await connection.execute(_REGISTER, _columns(rows))}
    for each in events:
        _check(each.data, kept[each.data.entity_id])
    return [_APPLIED] * len(events)


def _fold(row: dict[str, Any], each: Incoming[BatchEssaysRegistered]) -> None:
    """Adds to a row of a batch what one more registration says of it."""
    data, said_at = each.data, each.event.event_timestamp
    row.setdefault("batch_id", data.entity_id)
    row.setdefault("essay_ids", data.essay_ids)
    row["user_id"] = row.get("user_id") or data.user_id
    row["student_prompt_ref"] = row.get("student_prompt_ref") or _json(data.student_prompt_ref)
    row["said_at"] = min(row.get("said_at", said_at), said_at)


def _check(data: BatchEssaysRegistered, batch: Any) -> None:
    """Raises `Unacceptable` if a registration contradicts what is known of the batch."""
    if tuple(batch.essay_ids) != data.essay_ids:
        raise Unacceptable("the batch is registered already, with other essays")
    if data.user_id not in (None, batch.user_id):
        raise Unacceptable("the batch is registered already, with another user")


# Arrays of different lengths are no array of arrays, so the essays come as JSON.
_REGISTER = text("""
    INSERT INTO ras_batches AS known (batch_id, user_id, essay_ids, student_prompt_ref, said_at)
    SELECT batch_id, user_id, ARRAY(
        SELECT essay FROM json_array_elements_text(essay_ids::json) WITH ORDINALITY AS each (essay, position)
        ORDER BY position
    ), student_prompt_ref::json, said_at
    FROM unnest(
        CAST(:batch_id AS text[]), CAST(:user_id AS text[]), CAST(:essay_ids AS text[]),
        CAST(:student_prompt_ref AS text[]), CAST(:said_at AS timestamptz[])
    ) AS said (batch_id, user_id, essay_ids, student_prompt_ref, said_at)
    ORDER BY batch_id
    ON CONFLICT (batch_id) DO UPDATE SET
        user_id = coalesce(known.user_id, excluded.user_id),
        student_prompt_ref = coalesce(known.student_prompt_ref, excluded.student_prompt_ref),
        said_at = least(known.said_at, excluded.said_at)
    RETURNING batch_id, user_id, essay_ids
""")


async def excess(
    connection: AsyncConnection, events: Sequence[Incoming[ExcessContentProvisionedV1]]
) -> Sequence[Effect]:
    """Keeps which uploads found no slot. No slot is ever given back, so nothing later changes that."""
    rows = [
        {
            "batch_id": each.data.batch_id,
            "file_upload_id": each.data.file_upload_id,
            "filename": _known(each.data.original_file_name),
            "text_storage_id": each.data.text_storage_id,
            "said_at": each.event.event_timestamp,
        }
        for each in events
    ]
    kept = {(row[0], row[1]) for row in await connection.execute(_EXCESS, _columns(rows))}
    return [_APPLIED if (row["batch_id"], row["file_upload_id"]) in kept else _OUTDATED for row in rows]


_EXCESS = text("""
    INSERT INTO ras_excess (batch_id, file_upload_id, filename, text_storage_id, said_at)
    SELECT * FROM unnest(
        CAST(:batch_id AS text[]), CAST(:file_upload_id AS text[]), CAST(:filename AS text[]),
        CAST(:text_storage_id AS text[]), CAST(:said_at AS timestamptz[])
    ) AS said (batch_id, file_upload_id, filename, text_storage_id, said_at)
    ORDER BY batch_id, file_upload_id
    ON CONFLICT DO NOTHING
    RETURNING batch_id, file_upload_id
""")


def _known(name: str) -> str | None:
    return None if name == UNKNOWN else name


def _slot(event: Incoming[EssaySlotAssignedV1]) -> Iterable[Row]:
    data = event.data
    yield {
        "batch_id": data.batch_id,
        "essay_id": data.essay_id,
        "file_upload_id": data.file_upload_id,
        "filename": _known(data.original_file_name),
        "slot_index": data.slot_index,
    }


def _spellcheck(event: Incoming[SpellcheckResultV1]) -> Iterable[Row]:
    data = event.data
    yield {
        "batch_id": data.batch_id,
        "essay_id": data.entity_id,
        "status": "completed" if data.succeeded else "failed",
        "correction_count": data.corrections_made,
        "corrected_text_storage_id": data.corrected_text_storage_id,
        "error_detail": _json(data.error_info),
    }


def _assessment(event: Incoming[AssessmentResultV1]) -> Iterable[Row]:
    for result in event.data.essay_results:
        if not result.is_anchor:
            yield {
                "batch_id": event.data.batch_id,
                "essay_id": result.essay_id,
                "rank": result.rank,
                "score": result.bt_score,
                "assignment_id": event.data.assignment_id,
            }


def _json(value: Mapping[str, Any] | None) -> str | None:
    try:
        return None if value is None else json.dumps(value)
    except ValueError as error:  # A number of more digits than Python writes.
        raise Unacceptable(f"cannot be written as JSON: {error}") from None


def _keeping(
    table: str, key: Key, types: Mapping[str, str], rows_of: Callable[[Incoming[Any]], Iterable[Row]]
) -> Callable[[AsyncConnection, Sequence[Incoming[Any]]], Any]:
    """Returns what keeps, in a table with this key, what events say where nothing later is known."""
    statement = _upsert(table, key, {**types, "said_at": "timestamptz", "event_id": "uuid"})

    async def keep(connection: AsyncConnection, events: Sequence[Incoming[Any]]) -> Sequence[Effect]:
        latest: dict[tuple[str, str], Row] = {}
        silent = set()
        for each in events:
            when = {"said_at": each.event.event_timestamp, "event_id": each.event.event_id}
            rows = {(row[key[0]], row[key[1]]): {**row, **when} for row in rows_of(each)}
            latest |= {key: row for key, row in rows.items() if _is_later(row, latest.get(key))}
            if not rows:
                silent.add(each.event.event_id)
        kept = await connection.execute(statement, _columns(list(latest.values()))) if latest else ()
        told: set[UUID] = {event_id for (event_id,) in kept} | silent
        return [_APPLIED if each.event.event_id in told else _OUTDATED for each in events]

    return keep


def _is_later(row: Row, than: Row | None) -> bool:
    return than is None or (row["said_at"], row["event_id"]) > (than["said_at"], than["event_id"])


def _upsert(table: str, key: Key, types: Mapping[str, str]) -> Any:
    """Returns the statement that keeps the latest of each key; it takes arrays, and rows in sorted order."""
    columns = ", ".join(types)
    # What comes as text because asyncpg has no arrays of it.
    values = ", ".join(f"{name}::json" if type_ == "json" else name for name, type_ in types.items())
    arrays = ", ".join(
        f"CAST(:{name} AS {'text' if type_ == 'json' else type_}[])" for name, type_ in types.items()
    )
    changed = ", ".join(f"{name} = excluded.{name}" for name in types if name not in key)
    keys = ", ".join(key)
    return text(f"""
        INSERT INTO {table} AS known ({columns})
        SELECT {values} FROM unnest({arrays}) AS said ({columns}) ORDER BY {keys}
        ON CONFLICT ({keys}) DO UPDATE SET {changed}
        WHERE (excluded.said_at, excluded.event_id) > (known.said_at, known.event_id)
        RETURNING event_id
    """)


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


_ESSAY = ("batch_id", "essay_id")
_IDS = dict.fromkeys(_ESSAY, "text")

slots_assigned = _keeping(
    "ras_slots",
    _ESSAY,
    {**_IDS, "file_upload_id": "text", "filename": "text", "slot_index": "integer"},
    _slot,
)
spellchecked = _keeping(
    "ras_spellchecks",
    _ESSAY,
    {
        **_IDS,
        "status": "text",
        "correction_count": "integer",
        "corrected_text_storage_id": "text",
        "error_detail": "json",
    },
    _spellcheck,
)
assessed = _keeping(
    "ras_assessments",
    _ESSAY,
    {**_IDS, "rank": "integer", "score": "double precision", "assignment_id": "text"},
    _assessment,
)


async def forget_names(connection: AsyncConnection, older_than: timedelta, limit: int) -> int:
    """Forgets what files were called that came longer ago, at most so many; returns how many."""
    how = {"age": older_than, "most": limit}
    return sum([(await connection.execute(each, how)).rowcount for each in _FORGET])


_FORGET = [
    text(f"""
        UPDATE {table} SET filename = NULL WHERE (batch_id, {of_batch}) IN (
            SELECT batch_id, {of_batch} FROM {table}
            WHERE filename IS NOT NULL AND said_at < clock_timestamp() - CAST(:age AS interval)
            LIMIT :most FOR UPDATE SKIP LOCKED
        )
    """).execution_options(preserve_rowcount=True)
    for table, of_batch in (("ras_slots", "essay_id"), ("ras_excess", "file_upload_id"))
]

HANDLERS: Sequence[Handler[Any]] = (
    Handler(ESSAYS_REGISTERED, BatchEssaysRegistered, registered),
    Handler(SLOT_ASSIGNED, EssaySlotAssignedV1, slots_assigned),
    Handler(EXCESS_CONTENT, ExcessContentProvisionedV1, excess),
    Handler(SPELLCHECK_RESULTS, SpellcheckResultV1, spellchecked),
    Handler(ASSESSMENT_PUBLISHED, AssessmentResultV1, assessed),
)
