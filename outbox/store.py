"""The pump's few statements: fetch a batch, settle it.

Every statement reads and writes one sink's lanes that the caller owns. Whoever connects through
`connect` gets the planner settings that these statements need; nobody else may inherit them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from outbox.message import Delivery, Failure, Sent
from outbox.settings import Settings

LOST_DATABASE = (
    OSError,  # a TimeoutError is one
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server's last words came while nothing was asked
)
"""What a statement raises when the database went away, or is not what it was."""

# A plan made while the tables were empty, or from statistics that are older than the queue's content,
# is wrong for ever or at the worst time. One plan is right for these statements: nested loops over
# indexes.
_PLANNER = {
    "plan_cache_mode": "force_generic_plan",
    # Not jit = off: asyncpg switches it off itself to look a type up, and leaves what it then finds.
    "jit_above_cost": "-1",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
_SET_LOCAL = "BEGIN; " + " ".join(f"SET LOCAL {name} = {value};" for name, value in _PLANNER.items())

# OFFSET 0 keeps it a look-up by all four columns for each row. As the join that the planner would make
# of it, every row walks all the blocking rows of its lane.
_HELD = """EXISTS (
                               SELECT FROM {schema}outbox_queue head
                               WHERE head.sink = q.sink AND head.lane = q.lane
                                 AND head.key_hash = q.key_hash AND head.blocks AND head.id < q.id
                               OFFSET 0)"""


class Place(NamedTuple):
    """Where a pump stands in one lane it owns."""

    lane: int
    epoch: int
    floor: int
    """Nothing with an id up to here is left to find in line."""


class Snapshot(NamedTuple):
    """What the database knew when a batch was read; transaction ids as 64-bit numbers."""

    xmin: int
    """Every transaction before this one is over."""
    next_xid: int
    """The next to be given out, from age(). Not the snapshot's xmax, which is one past the newest that is
    *over*: a transaction that has its xid and is still open can be above that."""
    last_id: int
    """The newest id drawn about then, perhaps a little later."""
    holds_ended: int
    """How often others than a lane's owner have ended holds of this sink."""


_SNAPSHOT = len(Snapshot._fields)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one fetch brought, in id order within each lane's line."""

    snapshot: Snapshot
    deliveries: list[Delivery]
    full: bool
    """Whether it was cut by the number of rows or bytes, so that more may be there."""


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
        """Delete a batch of what was done long ago, row and receipt together, one pruner at a time."""
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


def _retry_by(failure: Failure) -> datetime | None:
    """When its retry must be due at the latest.

    What may have arrived is tried again though it is too late, and not in haste.
    """
    if failure.delay is None or (failure.uncertain and failure.delivery.expired):
        return None
    return failure.delivery.expires_at


@asynccontextmanager
async def connect(settings: Settings, name: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of one's own with the planner settings; `name` is its application_name.

    Behind a transaction pooler the settings would stay on a server connection that others use next, so
    there they are set in each transaction instead (`Store`), and no statement is cached.
    """
    pooled = settings.database_pooler == "transaction"
    connection = await asyncpg.connect(
        settings.asyncpg_dsn,
        timeout=10,
        command_timeout=settings.lease_seconds,
        statement_cache_size=0 if pooled else 100,
        server_settings={"application_name": name} | ({} if pooled else _PLANNER),
    )
    try:
        yield connection
    finally:
        # Whatever state it is in; nothing is open that a rollback would not undo.
        connection.terminate()


class Store:
    """The statements of one sink, run on one connection for one relay."""

    def __init__(self, connection: asyncpg.Connection, settings: Settings, sink: str, relay: UUID) -> None:
        self._connection = connection
        self._pooled = settings.database_pooler == "transaction"
        self._sql = Statements(settings.database_schema)
        self._sink = sink
        self._relay = relay

    async def fetch(
        self,
        places: Sequence[Place],
        *,
        rows: int,
        budget: int,
        without: Sequence[str] = (),
        holds_ended: int = 0,
    ) -> Batch:
        """The next deliveries of these places: at most `rows`, about `budget` bytes, at least one.

        `without` are destinations to leave out. Lanes are served in the order given. Unless the
        snapshot's `holds_ended` is the one given, all floors were taken for zero.
        """
        lanes = [place.lane for place in places]
        floors = [place.floor for place in places]
        records = await self._run(
            self._sql.fetch, self._sink, lanes, floors, rows, budget, list(without), holds_ended
        )
        snapshot = Snapshot(*records[0][-_SNAPSHOT:])
        deliveries = [Delivery._make(record[:-_SNAPSHOT]) for record in records if record[0] is not None]
        full = len(deliveries) >= rows or sum(d.size for d in deliveries) >= budget
        return Batch(snapshot, deliveries, full)

    async def deliver(self, sent: Sequence[tuple[Delivery, Sent]]) -> tuple[int, float]:
        """Record what the sink has.

        Returns how many were still to be recorded, and how many seconds ago the oldest of them was due.
        """
        records = await self._run(
            self._sql.deliver,
            self._sink,
            self._relay,
            [delivery.lane for delivery, _ in sent],
            [delivery.id for delivery, _ in sent],
            [result.partition for _, result in sent],
            [result.offset for _, result in sent],
            [result.receivers for _, result in sent],
        )
        count, oldest = records[0]
        return count, oldest or 0.0

    async def fail(self, places: Sequence[Place], failures: Sequence[Failure]) -> set[int]:
        """Record failures; returns the ids recorded, without those whose lane is no longer ours."""
        records = await self._run(
            self._sql.fail,
            *self._fence(places),
            [f.delivery.lane for f in failures],
            [f.delivery.id for f in failures],
            [int(f.counted) for f in failures],
            [f.reason for f in failures],
            [f.delay for f in failures],
            [_retry_by(f) for f in failures],
            [f.blocks for f in failures],
            [f.uncertain for f in failures],
        )
        return {record[0] for record in records}

    async def mark_uncertain(self, places: Sequence[Place], deliveries: Sequence[Delivery]) -> None:
        """Remember that these may have arrived."""
        await self._run(
            self._sql.mark_uncertain,
            *self._fence(places),
            [d.lane for d in deliveries],
            [d.id for d in deliveries],
        )

    async def expire(self, places: Sequence[Place], deliveries: Sequence[Delivery]) -> set[int]:
        """Give these up as too late; returns the ids, without those whose lane is no longer ours."""
        records = await self._run(
            self._sql.expire, *self._fence(places), [d.lane for d in deliveries], [d.id for d in deliveries]
        )
        return {record[0] for record in records}

    def _fence(self, places: Sequence[Place]) -> tuple[str, UUID, list[int], list[int]]:
        return self._sink, self._relay, [p.lane for p in places], [p.epoch for p in places]

    async def _run(self, statement: str, *values: Any) -> list[Any]:
        if not self._pooled:
            found: list[Any] = await self._connection.fetch(statement, *values)
            return found
        await self._connection.execute(_SET_LOCAL)
        try:
            found = await self._connection.fetch(statement, *values)
        except BaseException:
            await self._connection.execute("ROLLBACK")
            raise
        await self._connection.execute("COMMIT")
        return found
