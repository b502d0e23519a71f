"""The SQL that is written out: of lists and groups, and of `repair`."""

from __future__ import annotations

from outbox.schema import FIRST_TIME, LAST_TIME
from outbox.schema.integrity import DONE, HIGHEST_ID, QUEUED, WRITTEN
from outbox.schema.lookup import at, is_one
from outbox.schema.notes import note_gaps

# Statistics may be older than the queue's content, and any other plan reads all of it.
BY_THE_KEY = """
    SELECT set_config(name, 'off', true)
    FROM unnest('{enable_sort,enable_bitmapscan,enable_seqscan,enable_hashjoin,enable_mergejoin,jit}'::text[])
        AS name
"""

# The lanes in which something is; those of one sink, or the one of a key, where they are given.
PLACES = """
    WITH RECURSIVE place AS (
        (SELECT sink, lane FROM {schema}outbox_queue WHERE sink >= $1 ORDER BY sink, lane LIMIT 1)
        UNION ALL
        SELECT following.* FROM place CROSS JOIN LATERAL (
            SELECT q.sink, q.lane FROM {schema}outbox_queue q
            WHERE (q.sink, q.lane) > (place.sink, place.lane) ORDER BY q.sink, q.lane LIMIT 1
        ) AS following
        WHERE $1 = '' OR following.sink = $1
    )
    SELECT sink, lane FROM place
    WHERE ($1 = '' OR sink = $1)
      AND coalesce(lane = hashtextextended($3::text, hashtextextended($2::text, 0)) & 63, true)
    LIMIT 1000
"""

# Of each sink: what is in line, in a part of its lanes from the lowest ids on; what waits for its time, and
# what is parked, by their own indexes. Each stops at a number of rows.
DEPTHS = """
    WITH RECURSIVE named AS (
        (SELECT sink FROM {schema}outbox_queue ORDER BY sink LIMIT 1)
        UNION ALL
        SELECT following.* FROM named CROSS JOIN LATERAL (
            SELECT q.sink FROM {schema}outbox_queue q WHERE q.sink > named.sink ORDER BY q.sink LIMIT 1
        ) AS following
    ), each AS MATERIALIZED (
        SELECT sink, coalesce(s.stuck_after, interval '5 minutes') AS stuck_after,
               s.sink IS NOT NULL AS is_served
        FROM (SELECT sink FROM named LIMIT 1000) AS named FULL JOIN {schema}outbox_sinks s USING (sink)
    )
    SELECT each.sink, each.is_served, parked.parked, waiting.scheduled, waiting.retrying,
           in_line.in_line, in_line.held, in_line.in_line - in_line.held AS due,
           in_line.stuck + waiting.stuck AS stuck, looked.looked_at,
           CAST(extract(epoch FROM now() - oldest.due_since) AS double precision) AS oldest_seconds
    FROM each
    CROSS JOIN LATERAL (
        SELECT count(*) AS parked FROM (
            SELECT FROM {schema}outbox_queue q
            WHERE q.parked_at IS NOT NULL AND q.sink = each.sink LIMIT $1
        ) AS few
    ) AS parked
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE few.last_error IS NULL AND few.due_at > now()) AS scheduled,
               count(*) FILTER (WHERE few.last_error IS NOT NULL) AS retrying,
               count(*) FILTER (
                   WHERE few.first_due_at < now() - each.stuck_after
                     AND (few.due_at > now() OR few.last_error IS NOT NULL)) AS stuck
        FROM (
            SELECT q.* FROM {schema}outbox_queue q
            WHERE q.due_at IS NOT NULL AND q.sink = each.sink LIMIT $1
        ) AS few
    ) AS waiting
    CROSS JOIN LATERAL (
        SELECT count(*) AS in_line, count(*) FILTER (WHERE few.is_held) AS held,
               count(*) FILTER (WHERE few.first_due_at < now() - each.stuck_after) AS stuck
        FROM (
            SELECT q.first_due_at, EXISTS (
                SELECT FROM {schema}outbox_queue head
                WHERE head.sink = q.sink AND head.lane = q.lane AND head.key_hash = q.key_hash
                  AND head.blocks AND head.id < q.id OFFSET 0) AS is_held
            FROM (SELECT * FROM {schema}outbox_queue q WHERE q.sink = each.sink LIMIT 50000) AS q
            WHERE q.parked_at IS NULL AND (q.due_at IS NULL OR q.due_at <= now() AND q.last_error IS NULL)
            LIMIT $1
        ) AS few
    ) AS in_line
    CROSS JOIN LATERAL (
        SELECT CASE WHEN in_line.in_line < $1 THEN (
            SELECT count(*) FROM (
                SELECT FROM {schema}outbox_queue q WHERE q.sink = each.sink LIMIT 50001
            ) AS few
        ) END AS looked_at
    ) AS looked
    CROSS JOIN LATERAL (
        SELECT min(greatest(first.first_due_at, 'epoch')) AS due_since
        FROM generate_series(0, 63) AS each_lane (number) CROSS JOIN LATERAL (
            (SELECT q.first_due_at, q.parked_at FROM {schema}outbox_queue q
             WHERE q.sink = each.sink AND q.lane = each_lane.number ORDER BY q.id LIMIT 100)
            UNION ALL
            (SELECT q.first_due_at, q.parked_at FROM {schema}outbox_queue q
             WHERE q.sink = each.sink AND q.lane = each_lane.number AND q.due_at IS NOT NULL
             ORDER BY q.due_at, q.id LIMIT 100)
        ) AS first
        WHERE first.parked_at IS NULL AND first.first_due_at <= now()
    ) AS oldest
    ORDER BY each.sink
"""

_CAUSES = """
    WITH RECURSIVE cause AS (
        (SELECT sink, fingerprint FROM {schema}outbox_queue
         WHERE parked_at IS NOT NULL ORDER BY sink, fingerprint LIMIT 1)
        UNION ALL
        SELECT following.* FROM cause CROSS JOIN LATERAL (
            SELECT q.sink, q.fingerprint FROM {schema}outbox_queue q
            WHERE q.parked_at IS NOT NULL AND (q.sink, q.fingerprint) > (cause.sink, cause.fingerprint)
            ORDER BY q.sink, q.fingerprint LIMIT 1
        ) AS following
    )"""

SINK_OF_GROUP = f"""{_CAUSES}
    SELECT sink FROM (SELECT * FROM cause LIMIT 1000) AS cause WHERE fingerprint = $1 LIMIT 1
"""

# Each has its row at either end, and is counted up to a number.
GROUPS = f"""{_CAUSES}
    SELECT cause.sink, cause.fingerprint, counted.rows,
           greatest('{FIRST_TIME}', least('{LAST_TIME}', seen_first.parked_at)) AS first,
           greatest('{FIRST_TIME}', least('{LAST_TIME}', seen_last.parked_at)) AS last,
           seen_last.id, seen_last.last_error, written.type, written.destination
    FROM (SELECT * FROM cause LIMIT $1) AS cause
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows FROM (
            SELECT FROM {{schema}}outbox_queue q
            WHERE q.parked_at IS NOT NULL AND q.sink = cause.sink AND q.fingerprint = cause.fingerprint
            LIMIT $2
        ) AS few
    ) AS counted
    CROSS JOIN LATERAL (
        SELECT q.parked_at FROM {{schema}}outbox_queue q
        WHERE q.parked_at IS NOT NULL AND q.sink = cause.sink AND q.fingerprint = cause.fingerprint
        ORDER BY q.parked_at, q.id LIMIT 1
    ) AS seen_first
    CROSS JOIN LATERAL (
        SELECT q.id, q.lane, q.parked_at, q.last_error FROM {{schema}}outbox_queue q
        WHERE q.parked_at IS NOT NULL AND q.sink = cause.sink AND q.fingerprint = cause.fingerprint
        ORDER BY q.parked_at DESC, q.id DESC LIMIT 1
    ) AS seen_last
    LEFT JOIN LATERAL (
        SELECT o.type, o.destination FROM {{schema}}outbox_state o
        WHERE o.pending AND o.sink = cause.sink AND o.lane = seen_last.lane AND o.id = seen_last.id OFFSET 0
    ) AS written ON true
    ORDER BY counted.rows DESC, cause.sink, cause.fingerprint
"""

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
