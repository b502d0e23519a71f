"""What must fit together in the tables, and the statement that looks whether it does.

A message is in the queue, or it has a receipt; what is in the queue has its message; an id is new. One
statement sees one snapshot, and writing, settling and pruning are one transaction each, so what is written,
settled or pruned at that moment fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

# OFFSET 0 keeps each a look-up by the whole key, whatever the planner knows of the tables.
WRITTEN = """EXISTS (
            SELECT FROM {schema}outbox o
            WHERE o.id = place.id AND o.sink = place.sink AND o.lane = place.lane OFFSET 0)"""
QUEUED = """EXISTS (
            SELECT FROM {schema}outbox_queue q
            WHERE q.sink = place.sink AND q.lane = place.lane AND q.id = place.id OFFSET 0)"""
DONE = "EXISTS (SELECT FROM {schema}outbox_receipts r WHERE r.id = place.id OFFSET 0)"

NEWEST = 10_000
"""How many of the newest messages are looked at each time."""
_OF_LANE = 20
"""How many of the lowest and of the highest ids in each lane of the queue."""
_LANES = 1_000
"""In so many lanes."""
_PARKED = 1_000
HIGHEST_ID = 2**62
"""The sequence never gets to what is above."""


@dataclass(frozen=True, slots=True)
class Amiss:
    """How many rows of the tables do not fit together, by what is wrong, as far as one looked."""

    lost: int
    """Messages in neither the queue nor the receipts: nobody will send them."""
    double: int
    """In the queue though they have a receipt: they go out again."""
    ghosts: int
    """In the queue without their message."""
    passed: int
    """In line with an id below what was done before they were written: floors may have passed them."""
    behind: int
    """By how much the sequence is behind the highest id."""

    @property
    def counts(self) -> Mapping[str, int]:
        """The numbers, by their names."""
        return asdict(self)

    def __bool__(self) -> bool:
        """Returns True if anything is amiss."""
        return any(self.counts.values())


BY_INDEX = "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)"
"""Lets the rest of a transaction read by indexes: whole lanes are sorted where nothing was analyzed."""

LOOK = f"""
    WITH RECURSIVE lane AS (
        (SELECT sink, lane FROM {{schema}}outbox_queue ORDER BY sink, lane LIMIT 1)
        UNION ALL
        SELECT following.* FROM lane CROSS JOIN LATERAL (
            SELECT q.sink, q.lane FROM {{schema}}outbox_queue q
            WHERE (q.sink, q.lane) > (lane.sink, lane.lane) ORDER BY q.sink, q.lane LIMIT 1
        ) AS following
    ), lanes AS MATERIALIZED (
        SELECT * FROM lane LIMIT {_LANES}
    ), lowest AS MATERIALIZED (
        SELECT queued.* FROM lanes CROSS JOIN LATERAL (
            SELECT * FROM {{schema}}outbox_queue q WHERE q.sink = lanes.sink AND q.lane = lanes.lane
            ORDER BY q.id LIMIT {_OF_LANE}
        ) AS queued
    ), highest AS MATERIALIZED (
        SELECT queued.* FROM lanes CROSS JOIN LATERAL (
            SELECT * FROM {{schema}}outbox_queue q WHERE q.sink = lanes.sink AND q.lane = lanes.lane
            ORDER BY q.id DESC LIMIT {_OF_LANE}
        ) AS queued
    ), place AS MATERIALIZED (
        (SELECT sink, lane, id FROM {{schema}}outbox ORDER BY id DESC LIMIT {NEWEST})
        UNION SELECT sink, lane, id FROM lowest
        UNION SELECT sink, lane, id FROM highest
        UNION (SELECT sink, lane, id FROM {{schema}}outbox_queue
               WHERE parked_at IS NOT NULL ORDER BY parked_at DESC LIMIT {_PARKED})
        UNION SELECT sink, lane, id FROM {{schema}}outbox_amiss
    ), found AS MATERIALIZED (
        SELECT {WRITTEN} AS written, {QUEUED} AS queued, {DONE} AS done FROM place
    ), early AS (
        SELECT FROM lowest
        CROSS JOIN LATERAL (
            SELECT o.created_at FROM {{schema}}outbox o WHERE o.id = lowest.id OFFSET 0
        ) AS written
        WHERE lowest.due_at IS NULL AND lowest.parked_at IS NULL AND written.created_at <= now()
          AND written.created_at - interval '1 second' > (
              SELECT r.settled_at FROM {{schema}}outbox_receipts r
              WHERE r.id > lowest.id ORDER BY r.id LIMIT 1)
    ), top (id) AS (
        (SELECT id FROM {{schema}}outbox WHERE id < {HIGHEST_ID} ORDER BY id DESC LIMIT 1)
        UNION ALL
        (SELECT id FROM {{schema}}outbox_receipts WHERE id < {HIGHEST_ID} ORDER BY id DESC LIMIT 1)
        UNION ALL
        (SELECT max(id) FROM highest WHERE id < {HIGHEST_ID})
    )
    SELECT count(*) FILTER (WHERE written AND NOT queued AND NOT done) AS lost,
           count(*) FILTER (WHERE written AND queued AND done) AS double,
           count(*) FILTER (WHERE queued AND NOT written) AS ghosts,
           (SELECT count(*) FROM early) AS passed,
           greatest(0, (SELECT max(id) FROM top) - (
               SELECT last_value - (NOT is_called)::integer FROM {{schema}}outbox_id_seq)) AS behind
    FROM found
"""
"""What is amiss among the newest messages, at both ends of each lane of the queue, among what is parked and
among what the relays' walk has found: a bounded number of look-ups, however much there is."""

FORGET = f"""
    DELETE FROM {{schema}}outbox_amiss AS place
    WHERE CASE WHEN {WRITTEN} THEN {QUEUED} <> {DONE} ELSE NOT {QUEUED} END
"""
"""Forgets what fits together by now."""
