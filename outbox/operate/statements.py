"""The SQL of `skip` and `repair`: what is amiss in a stretch of a table, and how it is mended."""

from __future__ import annotations

from outbox.schema.integrity import DONE, HIGHEST_ID, QUEUED, WRITTEN
from outbox.schema.lookup import at, is_one
from outbox.schema.notes import note_gaps

SKIP = f"""
    WITH gone AS (
        DELETE FROM {{schema}}outbox_queue q USING unnest($2::smallint[], $3::bigint[]) AS place (lane, id)
        WHERE {at("place")}
        RETURNING q.sink, q.id, q.attempts, q.blocks, q.uncertain
    ), receipts AS (
        INSERT INTO {{schema}}outbox_receipts (id, outcome, attempts)
        SELECT id, 'skipped', attempts FROM gone
        ON CONFLICT DO NOTHING
    ), noted AS ({note_gaps("gone")}
    )
    SELECT coalesce(bool_or(blocks), false), count(*) FILTER (WHERE uncertain) FROM gone
"""

NEWEST_ID = "SELECT coalesce(max(id), 0) FROM {schema}outbox"

NEXT_ID = """
    SELECT min(first.id) FROM generate_series(0, $3::integer - 1) AS every (lane)
    CROSS JOIN LATERAL (
        SELECT q.id FROM {schema}outbox_queue q
        WHERE q.sink = $1 AND q.lane = every.lane AND q.id > $2::bigint ORDER BY q.id LIMIT 1
    ) AS first
"""
"""The lowest id of a sink in the queue after another."""

LOCK = "LOCK TABLE {schema}outbox_amiss IN SHARE ROW EXCLUSIVE MODE"

FIND_LOST = f"""
    WITH stretch AS MATERIALIZED (
        SELECT id FROM {{schema}}outbox WHERE id > $1 ORDER BY id LIMIT $2
    ), pending AS MATERIALIZED (
        SELECT place.id FROM stretch AS place WHERE NOT {DONE}
    ), lost AS MATERIALIZED (
        SELECT place.* FROM pending CROSS JOIN LATERAL (
            SELECT o.sink, o.lane, o.id, o.key, o.key_hash FROM {{schema}}outbox o
            WHERE o.id = pending.id OFFSET 0
        ) AS place
        WHERE NOT {QUEUED}
    )
    SELECT reached.id AS reached, lost.id, lost.sink, CASE WHEN lost.key IS NOT NULL THEN lost.key_hash END
    FROM (SELECT max(id) AS id FROM stretch) AS reached LEFT JOIN lost ON true
    ORDER BY lost.id
"""

DELIVERED = """
    SELECT o.sink, o.key_hash, max(o.id) FROM {schema}outbox o
    JOIN {schema}outbox_receipts r ON r.id = o.id AND r.outcome = 'delivered'
    WHERE o.id > $1 AND o.id <= $2 AND o.key IS NOT NULL
    GROUP BY o.sink, o.key_hash
"""

# As the trigger on `outbox` does it.
QUEUE_LOST = f"""
    INSERT INTO {{schema}}outbox_queue
        (sink, lane, id, key_hash, destination_hash, bytes, first_due_at, due_at)
    SELECT sink, lane, id, CASE WHEN key IS NULL THEN hashint8extended(id, 1) ELSE key_hash END,
           hashtextextended(destination, 0),
           coalesce(octet_length(payload), 0) + coalesce(octet_length(key), 0) + octet_length(headers::text),
           least(greatest(available_at, created_at, '0001-01-02 00:00:00+00'), '9999-12-30 00:00:00+00'),
           CASE WHEN available_at > clock_timestamp() THEN available_at END
    FROM {{schema}}outbox AS place
    WHERE id > $1 AND id <= $2 AND NOT {DONE} AND NOT {QUEUED}
    ORDER BY id
    ON CONFLICT DO NOTHING
    RETURNING sink
"""

SKIP_LOST = f"""
    WITH place AS MATERIALIZED (
        SELECT sink, lane, id FROM {{schema}}outbox WHERE id > $1 AND id <= $2
    ), lost AS MATERIALIZED (
        SELECT sink, id FROM place WHERE NOT {DONE} AND NOT {QUEUED}
    ), skipped AS (
        INSERT INTO {{schema}}outbox_receipts (id, outcome, attempts)
        SELECT id, 'skipped', 0 FROM lost
        ON CONFLICT DO NOTHING
        RETURNING id
    ), noted AS ({note_gaps("lost")}
    )
    SELECT id FROM skipped
"""

_JUDGED = """
        SELECT place.*, written.id IS NULL AS ghost,
               written.id IS NOT NULL AND done.settled_at >= written.created_at AS again,
               written.id IS NOT NULL AND done.settled_at < written.created_at AS stale
        FROM amiss AS place
        LEFT JOIN LATERAL (
            SELECT o.id, o.created_at FROM {schema}outbox o
            WHERE o.id = place.id AND o.sink = place.sink AND o.lane = place.lane OFFSET 0
        ) AS written ON true
        LEFT JOIN LATERAL (
            SELECT r.settled_at FROM {schema}outbox_receipts r WHERE r.id = place.id OFFSET 0
        ) AS done ON true"""

JUDGE_QUEUE = f"""
    WITH stretch AS MATERIALIZED (
        SELECT q.sink, q.lane, q.id FROM {{schema}}outbox_queue q
        WHERE (q.sink, q.lane, q.id) > ($1, $2, $3) ORDER BY q.sink, q.lane, q.id LIMIT $4
    ), amiss AS MATERIALIZED (
        SELECT place.* FROM stretch AS place WHERE NOT {WRITTEN} OR {DONE}
    ), judged AS ({_JUDGED}
    )
    SELECT found.*, reached.* FROM (
        SELECT count(*) FILTER (WHERE again), count(*) FILTER (WHERE stale), count(*) FILTER (WHERE ghost)
        FROM judged
    ) AS found
    CROSS JOIN (SELECT * FROM stretch ORDER BY sink DESC, lane DESC, id DESC LIMIT 1) AS reached
"""

MEND_QUEUE = f"""
    WITH amiss AS MATERIALIZED (
        SELECT place.sink, place.lane, place.id, place.blocks FROM {{schema}}outbox_queue AS place
        WHERE (place.sink, place.lane, place.id) > ($1, $2, $3)
          AND (place.sink, place.lane, place.id) <= ($4, $5, $6)
          AND (NOT {WRITTEN} OR {DONE})
        FOR UPDATE OF place SKIP LOCKED
    ), judged AS MATERIALIZED ({_JUDGED}
    ), forgotten AS (
        DELETE FROM {{schema}}outbox_receipts r USING judged
        WHERE {is_one("r.id", "judged.id")} AND judged.stale
    ), dropped AS (
        DELETE FROM {{schema}}outbox_queue q USING judged
        WHERE {at("judged", sink="judged.sink")} AND NOT judged.stale
    )
    SELECT count(*) FILTER (WHERE again), count(*) FILTER (WHERE stale), count(*) FILTER (WHERE ghost),
           coalesce(array_agg(DISTINCT sink) FILTER (WHERE blocks AND NOT stale), '{{}}')
    FROM judged
"""

# Further than needed, so that ids that others draw meanwhile are below.
SET_SEQUENCE_ON = f"""
    SELECT setval('{{schema}}outbox_id_seq', top.id + 1000) FROM (
        SELECT max(id) AS id FROM (
            SELECT max(id) AS id FROM {{schema}}outbox WHERE id < {HIGHEST_ID}
            UNION ALL SELECT max(id) FROM {{schema}}outbox_receipts WHERE id < {HIGHEST_ID}
            UNION ALL SELECT max(id) FROM {{schema}}outbox_queue WHERE id < {HIGHEST_ID}
        ) AS each_table
    ) AS top
    WHERE top.id > (SELECT last_value - (NOT is_called)::integer FROM {{schema}}outbox_id_seq)
"""

TELL = "UPDATE {schema}outbox_sinks SET holds_ended = holds_ended + 1 WHERE sink = $1"
SINKS = "SELECT sink FROM {schema}outbox_sinks"
