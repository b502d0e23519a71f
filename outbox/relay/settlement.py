"""The SQL that settles a batch: delivered, failed, uncertain, too late.

Fenced by (owner, epoch) but for delivered marks, and all of it within the history of the fetch. What is given
up leaves a note of the gap; what is delivered costs nothing for it.
"""

from __future__ import annotations

from outbox.relay.statements import GONE, HISTORY
from outbox.schema.lookup import at, is_one
from outbox.schema.notes import note_gaps


def _same(history: str, message_id: str) -> str:
    """Returns the condition that an id still means what it meant when it was fetched.

    The same history says so for all of them at once; where the database does not tell, or what was sent is
    recorded by a later connection, each message does.
    """
    return f"""coalesce({HISTORY} = {history}, {message_id} IS NULL OR EXISTS (
                SELECT FROM {{schema}}outbox o WHERE o.id = q.id AND o.message_id = {message_id}))"""


def _deliver(sent: str, same: str, on_conflict: str) -> str:
    return f"""
    WITH done AS (
        DELETE FROM {{schema}}outbox_queue q
        USING {sent}
        WHERE {at("sent")} AND {same}
        RETURNING q.lane, q.id, q.attempts, q.blocks, q.first_due_at,
                  sent.partition, sent.partition_offset, sent.receivers
    ), receipts AS (
        INSERT INTO {{schema}}outbox_receipts
            (id, outcome, attempts, partition, partition_offset, receivers)
        SELECT id, 'delivered', attempts, partition, partition_offset, receivers FROM done
        {on_conflict}
    ), told AS (
        UPDATE {{schema}}outbox_sinks SET holds_ended = holds_ended + 1
        WHERE sink = $1 AND EXISTS (
            SELECT FROM done
            JOIN {{schema}}outbox_lanes l ON l.sink = $1 AND l.lane = done.lane
            WHERE done.blocks AND l.owner IS DISTINCT FROM $2)
    )
    SELECT count(*), extract(epoch FROM clock_timestamp() - min(greatest(first_due_at, 'epoch')))::float
    FROM done
"""


DELIVER = _deliver(
    """unnest($3::smallint[], $4::bigint[], $5::integer[], $6::bigint[], $7::integer[])
            AS sent (lane, id, partition, partition_offset, receivers)""",
    f"{HISTORY} = $8::text",
    "",
)
"""A delivered mark is a fact: accepted from whoever brings it, recorded once.

Where it ended a hold in a lane that somebody else owns, that owner is told.
"""

DELIVER_AGAIN = _deliver(
    """unnest($3::smallint[], $4::bigint[], $5::integer[], $6::bigint[], $7::integer[], $9::uuid[])
            AS sent (lane, id, partition, partition_offset, receivers, message_id)""",
    _same("$8::text", "sent.message_id"),
    "ON CONFLICT DO NOTHING",
)
"""The same where no history is known, or somebody put deliveries with a receipt into the queue again: the
first receipt stays.

To look at each message and each receipt would cost every row a fifth of what recording it costs.
"""

_FENCE = """
    WITH fence AS MATERIALIZED (
        SELECT l.lane
        FROM unnest($3::smallint[], $4::bigint[]) AS mine (lane, epoch)
        JOIN {schema}outbox_lanes l ON l.sink = $1 AND l.lane = mine.lane
        WHERE l.owner = $2 AND l.epoch = mine.epoch AND l.expires_at > clock_timestamp()
        ORDER BY l.lane
        FOR SHARE OF l
    )"""

FAIL = f"""{_FENCE}, recorded AS (
        UPDATE {{schema}}outbox_queue q
        SET attempts = least(q.attempts + failed.counted, 32767),
            last_error = failed.reason,
            due_at = CASE WHEN q.parked_at IS NULL THEN
                least(clock_timestamp() + failed.delay * interval '1 second', failed.expires_at) END,
            parked_at = CASE WHEN failed.delay IS NULL THEN clock_timestamp() ELSE q.parked_at END,
            blocks = failed.delay IS NOT NULL AND q.parked_at IS NULL
                OR failed.reason <> '{GONE}' AND EXISTS (
                    SELECT FROM {{schema}}outbox_sinks s WHERE s.sink = $1 AND s.on_park = 'hold'),
            uncertain = failed.uncertain
        FROM unnest($5::smallint[], $6::bigint[], $7::integer[], $8::text[], $9::double precision[],
                    $10::timestamptz[], $11::boolean[], $13::uuid[])
            AS failed (lane, id, counted, reason, delay, expires_at, uncertain, message_id)
        JOIN fence ON {is_one("failed.lane", "fence.lane")}
        WHERE {at("failed")} AND {_same("$12::text", "failed.message_id")}
        RETURNING q.sink, q.id, q.parked_at
    ), lost AS (
        SELECT sink, id FROM recorded WHERE parked_at IS NOT NULL
    ), noted AS ({note_gaps("lost")}
    )
    SELECT id FROM recorded
"""
"""Record failures, where the lane is still ours; answers the ids it recorded.

Whether the key of a parked one waits is said by the policy in force, which may be another relay's. What an
operator has parked while it was on its way stays so.
"""

MARK_UNCERTAIN = f"""{_FENCE}
    UPDATE {{schema}}outbox_queue q SET uncertain = true
    FROM unnest($5::smallint[], $6::bigint[], $8::uuid[]) AS sent (lane, id, message_id)
    JOIN fence ON {is_one("sent.lane", "fence.lane")}
    WHERE {at("sent")} AND {_same("$7::text", "sent.message_id")}
"""
"""Remember that a send may have arrived, where the lane is still ours."""

EXPIRE = f"""{_FENCE}, gone AS (
        DELETE FROM {{schema}}outbox_queue q
        USING unnest($5::smallint[], $6::bigint[], $8::uuid[]) AS late (lane, id, message_id)
        JOIN fence ON {is_one("late.lane", "fence.lane")}
        WHERE {at("late")} AND {_same("$7::text", "late.message_id")}
        RETURNING q.sink, q.id, q.attempts
    ), receipts AS (
        INSERT INTO {{schema}}outbox_receipts (id, outcome, attempts)
        SELECT id, 'expired', attempts FROM gone
        ON CONFLICT DO NOTHING
    ), noted AS ({note_gaps("gone")}
    )
    SELECT id FROM gone
"""
"""Give up what is too late, where the lane is still ours; answers the ids it gave up."""

WITHOUT_NOTE = {
    FAIL: FAIL.replace(note_gaps("lost"), "SELECT"),
    EXPIRE: EXPIRE.replace(note_gaps("gone"), "SELECT"),
}
"""The same by who may write no notes."""
