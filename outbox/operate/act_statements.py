"""The SQL of what operators do to deliveries: one batch each, of one sink's rows at the places given.

Rows that somebody else has locked are passed over. All but `REPLAY` ask for the state again under the lock,
since a relay may have changed it meanwhile.
"""

from __future__ import annotations

from outbox.schema.lookup import at, is_one, is_parked
from outbox.schema.notes import NOTE, note_gaps

_STATE = """CASE WHEN q.parked_at IS NOT NULL THEN 'parked'
                 WHEN q.due_at IS NOT NULL AND q.last_error IS NOT NULL THEN 'retrying'
                 WHEN q.due_at > clock_timestamp() THEN 'scheduled'
                 ELSE 'ready' END = ANY ($4::text[])"""


def _rows(lock: str) -> str:
    """Returns the CTEs of the rows to change, `mine`, and of those that are somebody else's now, `busy`."""
    return f"""
    WITH place AS MATERIALIZED (
        SELECT lane, id FROM unnest($2::smallint[], $3::bigint[]) AS place (lane, id)
    ), mine AS MATERIALIZED (
        SELECT q.lane, q.id, q.key_hash, q.blocks, q.uncertain
        FROM place JOIN {{schema}}outbox_queue q ON {at("place")}
        WHERE {_STATE}
        {lock}
    ), busy AS MATERIALIZED (
        SELECT q.lane, q.id, q.key_hash
        FROM (SELECT lane, id FROM place EXCEPT SELECT lane, id FROM mine) AS place
        JOIN {{schema}}outbox_queue q ON {at("place")}
        WHERE {_STATE}
    )"""


_LOCKED = _rows("FOR UPDATE OF q SKIP LOCKED")

# By the index of parked keys alone: no other has anything of `e.lane + 0`.
_EARLIER = f"""
        SELECT e.lane, e.id FROM {{schema}}outbox_queue e
        WHERE {is_parked("e.")} AND e.key_hash = key.key_hash AND e.id < key.last_id
          AND e.lane + 0 = key.lane AND e.sink || '' = $1"""

# A row's turn has come if all that is parked before it in its key goes with it.
_TURN = f""", key AS MATERIALIZED (
        SELECT lane, key_hash, max(id) AS last_id FROM mine GROUP BY lane, key_hash
    ), turn AS MATERIALIZED (
        SELECT lane, id, bool_and(is_mine) OVER (PARTITION BY lane, key_hash ORDER BY id) AS has_come
        FROM (
            SELECT lane, key_hash, id, bool_or(is_mine) AS is_mine
            FROM (
                SELECT lane, key_hash, id, true AS is_mine FROM mine
                UNION ALL SELECT lane, key_hash, id, false FROM busy
                UNION ALL SELECT key.lane, key.key_hash, earlier.id, false
                FROM key CROSS JOIN LATERAL ({_EARLIER} OFFSET 0) AS earlier
            ) AS each
            GROUP BY lane, key_hash, id
        ) AS one
    )"""

_LEFT_OUT = "(SELECT count(*) FROM mine) - (SELECT count(*) FROM turn WHERE has_come)"


def _tell(which: str) -> str:
    # What waited may be below its owner's floor. Told in the same transaction, so that nothing newer of the
    # key goes out before it.
    return f"""UPDATE {{schema}}outbox_sinks SET holds_ended = holds_ended + 1
        WHERE sink = $1 AND EXISTS (SELECT FROM {which})"""


RETRY = f"""{_LOCKED}{_TURN}, changed AS (
        UPDATE {{schema}}outbox_queue q
        SET parked_at = NULL, attempts = 0, blocks = false,
            due_at = CASE WHEN q.first_due_at > clock_timestamp() THEN q.first_due_at END,
            last_error = CASE WHEN q.first_due_at <= clock_timestamp() THEN q.last_error END
        FROM turn WHERE turn.has_come AND {at("turn")}
        RETURNING q.id
    ), told AS ({_tell("changed")}
    )
    SELECT (SELECT count(*) FROM changed) AS rows, {_LEFT_OUT} AS left_out,
           (SELECT count(*) FROM busy) AS busy, 0::bigint AS uncertain
"""
"""Puts them back in line, where they go out by id, before what of their keys is newer; what was never due is
scheduled again."""

LEFT_OUT = f"{_rows('')}{_TURN} SELECT {_LEFT_OUT}"
"""How many `RETRY` would leave out."""

SKIP = f"""{_LOCKED}, gone AS (
        DELETE FROM {{schema}}outbox_queue q USING mine WHERE {at("mine")}
        RETURNING q.sink, q.id, q.attempts, q.blocks, q.uncertain
    ), receipts AS (
        INSERT INTO {{schema}}outbox_receipts (id, outcome, attempts)
        SELECT id, 'skipped', attempts FROM gone
        ON CONFLICT DO NOTHING
    ), noted AS ({note_gaps("gone")}
    ), told AS ({_tell("gone WHERE blocks")}
    )
    SELECT (SELECT count(*) FROM gone) AS rows, 0::bigint AS left_out,
           (SELECT count(*) FROM busy) AS busy, (SELECT count(*) FROM gone WHERE uncertain) AS uncertain
"""

PARK = f"""{_LOCKED}, changed AS (
        UPDATE {{schema}}outbox_queue q
        SET parked_at = clock_timestamp(), due_at = NULL, last_error = $5,
            blocks = EXISTS (SELECT FROM {{schema}}outbox_sinks s WHERE s.sink = $1 AND s.on_park = 'hold')
        FROM mine WHERE {at("mine")}
        RETURNING q.sink, q.id, mine.blocks AND NOT q.blocks AS lets_go
    ), noted AS ({note_gaps("changed")}
    ), told AS ({_tell("changed WHERE lets_go")}
    )
    SELECT (SELECT count(*) FROM changed) AS rows, 0::bigint AS left_out,
           (SELECT count(*) FROM busy) AS busy, 0::bigint AS uncertain
"""

EARLIER = f"""
    SELECT array_agg(lane) AS lanes, array_agg(id) AS ids FROM (
        SELECT earlier.lane, earlier.id
        FROM (
            SELECT q.lane, q.key_hash, max(q.id) AS last_id
            FROM unnest($2::smallint[], $3::bigint[]) AS place (lane, id)
            JOIN {{schema}}outbox_queue q ON {at("place")}
            GROUP BY q.lane, q.key_hash
        ) AS key
        CROSS JOIN LATERAL ({_EARLIER} OFFSET 0) AS earlier
        WHERE earlier.id <> ALL ($3::bigint[])
        ORDER BY earlier.id LIMIT $4
    ) AS earlier
"""
"""What is parked before these in their keys and is none of them, the lowest ids first."""

_DELIVERED = f"""
    SELECT r.id FROM {{schema}}outbox_receipts r
    CROSS JOIN LATERAL (
        SELECT o.sink, o.destination, o.key, o.type FROM {{schema}}outbox o WHERE o.id = r.id OFFSET 0
    ) AS o
    WHERE r.id > $1 AND r.id <= $2 AND r.outcome = 'delivered' AND o.type <> '{NOTE}'
      AND o.sink = $3 AND coalesce(o.destination = $4, true) AND coalesce(o.key = $5::text, $5::text IS NULL)
      AND coalesce(o.type = $6, true)
      AND coalesce(r.settled_at >= $7::text::timestamptz, true)
      AND coalesce(r.settled_at < $8::text::timestamptz, true)
"""
"""What was delivered between two ids to a sink, and matches."""

RECEIPTS = """
    SELECT max(id) AS id, count(*) AS rows FROM (
        SELECT id FROM {schema}outbox_receipts WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3
    ) AS stretch
"""
"""How far so many receipts go."""

DELIVERED = f"SELECT array_agg(id ORDER BY id) FROM ({_DELIVERED} ORDER BY r.id LIMIT $9) AS delivered"

REPLAY = f"""
    INSERT INTO {{schema}}outbox (message_id, type, sink, destination, key, payload, headers, replay_id)
    SELECT message_id, type, sink, coalesce($2::text, destination), key, payload, headers, $3::uuid
    FROM (
        SELECT o.* FROM unnest($1::bigint[]) AS delivered (id)
        JOIN {{schema}}outbox o ON {is_one("o.id", "delivered.id")}
        ORDER BY o.id
    ) AS written
    ON CONFLICT DO NOTHING
"""
"""Writes them again, at once, in their order; each message once in a replay."""

NEWEST_ID = "SELECT coalesce(max(id), 0) FROM {schema}outbox"

NEXT_ID = """
    SELECT min(first.id) FROM generate_series(0, 63) AS every (lane)
    CROSS JOIN LATERAL (
        SELECT q.id FROM {schema}outbox_queue q
        WHERE q.sink = $1 AND q.lane = every.lane AND q.id > $2::bigint ORDER BY q.id LIMIT 1
    ) AS first
"""
"""The lowest id of a sink in the queue after another."""

PREVIOUS_ID = """
    SELECT max(first.id) FROM generate_series(0, 63) AS every (lane)
    CROSS JOIN LATERAL (
        SELECT q.id FROM {schema}outbox_queue q
        WHERE q.sink = $1 AND q.lane = every.lane AND q.id < $2::bigint ORDER BY q.id DESC LIMIT 1
    ) AS first
"""
"""The highest before another."""

ASK = """
    SELECT {schema}outbox_ask($1, $2::text::jsonb, $3::text::jsonb, $4, $5, $6, $7::text::jsonb, $8, $9, $10)
"""

CANCEL = "SELECT {schema}outbox_cancel($1, $2, $3, $4)"

RECORD_ACT = "SELECT {schema}outbox_record($1, $2::text::jsonb, $3::text::jsonb, $4::text::jsonb, $5, $6, $7)"

TAKE = """
    SELECT *, clock_timestamp() AS now FROM {schema}outbox_operations
    WHERE ended_at IS NULL AND id = coalesce($1, id)
    ORDER BY next_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
"""
"""The open operation whose turn it is, or a certain one, for one batch; none that somebody is at."""

RECORD_BATCH = """
    UPDATE {schema}outbox_operations
    SET sink = $2, reached = $3, rows = rows + $4, left_out = left_out + $5, busy = busy + $6,
        uncertain = uncertain + $7, trouble = NULL,
        next_at = clock_timestamp() + $8::double precision * interval '1 second',
        ended_at = CASE WHEN $9 THEN clock_timestamp() END, ids = CASE WHEN $9 THEN NULL ELSE ids END
    WHERE id = $1
"""

TROUBLE = """
    UPDATE {schema}outbox_operations SET trouble = $2, next_at = clock_timestamp() + interval '5 seconds'
    WHERE id = $1 AND ended_at IS NULL
"""
