"""The SQL of pumps and maintenance, with the tables' schema filled in.

Each statement reads and writes lanes of one sink that the caller owns, unless it says otherwise. They are
written for one plan, nested loops over indexes, which `store.connect` asks for.
"""

from __future__ import annotations

from functools import cached_property

# OFFSET 0 keeps it a look-up by all four columns for each row. As the join that the planner would make
# of it, every row walks all the blocking rows of its lane.
_HELD = """EXISTS (
                               SELECT FROM {schema}outbox_queue head
                               WHERE head.sink = q.sink AND head.lane = q.lane
                                 AND head.key_hash = q.key_hash AND head.blocks AND head.id < q.id
                               OFFSET 0)"""


class Statements:
    """The SQL, with the tables' schema filled in."""

    def __init__(self, schema: str | None) -> None:
        self._prefix = f'"{schema}".' if schema else ""

    def _fill(self, statement: str) -> str:
        return statement.replace("{held}", _HELD).replace("{schema}", self._prefix)

    @cached_property
    def fetch(self) -> str:
        """Deliveries that may go out now, of the lanes given, each lane from its floor.

        Retries that are due come first within a lane, with the scheduled deliveries that the floor has
        passed; one whose time comes before takes its place in line, behind what is not sent yet. A
        delivery is held while an earlier one of its key blocks. Bytes are summed before any payload is
        read. Floors count only if nobody else has ended a hold since: what waited for it is below them.
        """
        return self._fill("""
            SELECT delivery.*, snapshot.xmin, snapshot.next_xid, snapshot.last_id, snapshot.holds_ended
            FROM (
                SELECT pg_snapshot_xmin(now)::text::bigint AS xmin,
                       pg_snapshot_xmin(now)::text::bigint + age(xid(pg_snapshot_xmin(now))) AS next_xid,
                       (SELECT last_value - (NOT is_called)::integer FROM {schema}outbox_id_seq) AS last_id,
                       (SELECT holds_ended FROM {schema}outbox_sinks WHERE sink = $1) AS holds_ended
                FROM pg_current_snapshot() AS now
            ) AS snapshot
            LEFT JOIN LATERAL (
                SELECT cut.id, cut.lane, cut.key_hash, cut.attempts, cut.due_at IS NOT NULL AS deferred,
                       cut.blocks, cut.uncertain, coalesce(written.expires_at <= now(), false) AS expired,
                       cut.bytes, written.message_id, written.type, written.destination, written.key,
                       written.payload, written.headers, written.created_at, written.expires_at,
                       written.replay_id
                FROM (
                    SELECT due.*, sum(due.bytes) OVER (ROWS UNBOUNDED PRECEDING) AS running
                    FROM unnest($2::smallint[], $3::bigint[]) AS place (lane, floor)
                    CROSS JOIN LATERAL (
                        SELECT CASE WHEN snapshot.holds_ended = $7 THEN place.floor ELSE 0 END AS id
                    ) AS floor
                    CROSS JOIN LATERAL (
                        (SELECT q.* FROM {schema}outbox_queue q
                         WHERE q.sink = $1 AND q.lane = place.lane AND q.due_at <= now()
                           AND (q.blocks OR q.id <= floor.id)
                           AND q.destination_hash <> ALL (
                               ARRAY(SELECT hashtextextended(d, 0) FROM unnest($6::text[]) AS d))
                           AND NOT {held}
                         ORDER BY q.due_at, q.id LIMIT $4)
                        UNION ALL
                        (SELECT q.* FROM {schema}outbox_queue q
                         WHERE q.sink = $1 AND q.lane = place.lane AND q.id > floor.id
                           AND q.parked_at IS NULL
                           AND (q.due_at IS NULL OR (q.due_at <= now() AND NOT q.blocks))
                           AND q.destination_hash <> ALL (
                               ARRAY(SELECT hashtextextended(d, 0) FROM unnest($6::text[]) AS d))
                           AND NOT {held}
                         ORDER BY q.id LIMIT $4)
                    ) AS due
                    LIMIT $4
                ) AS cut
                CROSS JOIN LATERAL (
                    SELECT * FROM {schema}outbox o WHERE o.id = cut.id OFFSET 0
                ) AS written
                WHERE cut.running - cut.bytes < $5
            ) AS delivery ON true
        """)

    @cached_property
    def deliver(self) -> str:
        """A delivered mark is a fact: accepted from whoever brings it, recorded once.

        Where it ended a hold in a lane that somebody else owns, that owner is told.
        """
        return self._fill("""
            WITH done AS (
                DELETE FROM {schema}outbox_queue q
                USING unnest($3::smallint[], $4::bigint[], $5::integer[], $6::bigint[], $7::integer[])
                    AS sent (lane, id, partition, partition_offset, receivers)
                WHERE q.sink = $1 AND q.lane = sent.lane AND q.id = sent.id
                RETURNING q.lane, q.id, q.attempts, q.blocks, q.first_due_at,
                          sent.partition, sent.partition_offset, sent.receivers
            ), receipts AS (
                INSERT INTO {schema}outbox_receipts
                    (id, outcome, attempts, partition, partition_offset, receivers)
                SELECT id, 'delivered', attempts, partition, partition_offset, receivers FROM done
            ), told AS (
                UPDATE {schema}outbox_sinks SET holds_ended = holds_ended + 1
                WHERE sink = $1 AND EXISTS (
                    SELECT FROM done
                    JOIN {schema}outbox_lanes l ON l.sink = $1 AND l.lane = done.lane
                    WHERE done.blocks AND l.owner IS DISTINCT FROM $2)
            )
            SELECT count(*), extract(epoch FROM clock_timestamp() - min(first_due_at))::float FROM done
        """)

    _FENCE = """
            WITH fence AS MATERIALIZED (
                SELECT l.lane
                FROM unnest($3::smallint[], $4::bigint[]) AS mine (lane, epoch)
                JOIN {schema}outbox_lanes l ON l.sink = $1 AND l.lane = mine.lane
                WHERE l.owner = $2 AND l.epoch = mine.epoch AND l.expires_at > clock_timestamp()
                ORDER BY l.lane
                FOR SHARE OF l
            )"""

    @cached_property
    def fail(self) -> str:
        """Record failures, where the lane is still ours; answers the ids it recorded."""
        return self._fill(f"""{self._FENCE}
            UPDATE {{schema}}outbox_queue q
            SET attempts = least(q.attempts + failed.counted, 32767),
                last_error = failed.reason,
                due_at = least(clock_timestamp() + failed.delay * interval '1 second', failed.expires_at),
                parked_at = CASE WHEN failed.delay IS NULL THEN clock_timestamp() END,
                blocks = failed.blocks,
                uncertain = failed.uncertain
            FROM unnest($5::smallint[], $6::bigint[], $7::integer[], $8::text[], $9::double precision[],
                        $10::timestamptz[], $11::boolean[], $12::boolean[])
                AS failed (lane, id, counted, reason, delay, expires_at, blocks, uncertain)
            JOIN fence ON fence.lane = failed.lane
            WHERE q.sink = $1 AND q.lane = failed.lane AND q.id = failed.id
            RETURNING q.id
        """)

    @cached_property
    def mark_uncertain(self) -> str:
        """Remember that a send may have arrived, where the lane is still ours."""
        return self._fill(f"""{self._FENCE}
            UPDATE {{schema}}outbox_queue q SET uncertain = true
            FROM unnest($5::smallint[], $6::bigint[]) AS sent (lane, id)
            JOIN fence ON fence.lane = sent.lane
            WHERE q.sink = $1 AND q.lane = sent.lane AND q.id = sent.id
        """)

    @cached_property
    def expire(self) -> str:
        """Give up what is too late, where the lane is still ours; answers the ids it gave up."""
        return self._fill(f"""{self._FENCE}, gone AS (
                DELETE FROM {{schema}}outbox_queue q
                USING unnest($5::smallint[], $6::bigint[]) AS late (lane, id)
                JOIN fence ON fence.lane = late.lane
                WHERE q.sink = $1 AND q.lane = late.lane AND q.id = late.id
                RETURNING q.id, q.attempts
            ), receipts AS (
                INSERT INTO {{schema}}outbox_receipts (id, outcome, attempts)
                SELECT id, 'expired', attempts FROM gone
            )
            SELECT id FROM gone
        """)

    @cached_property
    def publish(self) -> str:
        """What the view needs of a sink's settings. Held keys follow the park policy when it changes."""
        return self._fill("""
            WITH before AS (
                SELECT on_park FROM {schema}outbox_sinks WHERE sink = $1
            ), parked AS (
                UPDATE {schema}outbox_queue SET blocks = ($3 = 'hold')
                FROM before
                WHERE sink = $1 AND parked_at IS NOT NULL AND before.on_park <> $3
            )
            INSERT INTO {schema}outbox_sinks (sink, stuck_after, on_park) VALUES ($1, $2, $3)
            ON CONFLICT (sink) DO UPDATE
            SET stuck_after = excluded.stuck_after, on_park = excluded.on_park,
                updated_at = clock_timestamp(), holds_ended = outbox_sinks.holds_ended + 1
            WHERE (outbox_sinks.stuck_after, outbox_sinks.on_park) <> (excluded.stuck_after, excluded.on_park)
        """)

    @cached_property
    def prune(self) -> str:
        """Delete a batch of what was done long ago, row and receipt together; several relays may at once."""
        return self._fill("""
            WITH oldest AS MATERIALIZED (
                SELECT id, settled_at FROM {schema}outbox_receipts WHERE id > $1 ORDER BY id LIMIT $2
            ), old AS MATERIALIZED (
                SELECT id FROM oldest WHERE settled_at < now() - $3::double precision * interval '1 second'
            ), receipts AS (
                DELETE FROM {schema}outbox_receipts r USING old WHERE r.id = old.id RETURNING r.id
            ), written AS (
                DELETE FROM {schema}outbox o USING receipts WHERE o.id = receipts.id
            )
            SELECT count(*) AS rows, max(id) AS last_id FROM receipts
        """)
