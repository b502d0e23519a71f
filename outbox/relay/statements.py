"""The SQL of the pumps: fetch a batch, and settle it.

Each statement reads and writes one sink's lanes that the caller owns, unless it says otherwise. They are
written for one plan, nested loops over indexes, which `store.relay_connection` asks for. `in_schema` fills in
where the tables are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from outbox.message import Delivery
from outbox.schema import (
    DESTINATION_BYTES,
    FIRST_TIME,
    HEADERS_TEXT_BYTES,
    KEY_BYTES,
    LAST_TIME,
    PAYLOAD_BYTES,
    TYPE_BYTES,
)


class Snapshot(NamedTuple):
    """What the database knew when a batch was read; transaction ids as 64-bit numbers."""

    xmin: int
    """Every transaction before this one is over."""
    next_xid: int
    """The next to be given out, from age(). Not the snapshot's xmax, which is one past the newest that is
    *over*: a transaction that has its xid and is still open can be above that."""
    last_id: int
    """The newest id drawn about then, perhaps a little later."""
    generation: str | None
    """Floors of another one are forgotten. It tells how often others than a lane's owner have ended holds of
    this sink, the file of the sequence (TRUNCATE … RESTART IDENTITY begins ids anew, in another file), and
    what is paused: what waited for the end of a pause is below them."""
    history: str | None
    """Which history of the database this is (`HISTORY`)."""


HISTORY = (
    "(SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8) || system_identifier FROM pg_control_system())"
)
"""The database's timeline: another one after a failover, in which ids may be given again. Not every provider
lets one ask for it."""

_PAUSES = "{schema}outbox_pauses p WHERE p.sink = $1 AND coalesce(p.until > now(), true)"
"""What is paused of the sink, in the fetch's own snapshot and time."""

_SNAPSHOT = {
    "xmin": "pg_snapshot_xmin(now)::text::bigint",
    "next_xid": "pg_snapshot_xmin(now)::text::bigint + age(xid(pg_snapshot_xmin(now)))",
    "last_id": "(SELECT last_value - (NOT is_called)::integer FROM {schema}outbox_id_seq)",
    "generation": "(SELECT holds_ended || ' ' || pg_relation_filenode('{schema}outbox_id_seq')"
    f" || coalesce(' ' || {HISTORY}, '')"
    f" || coalesce(' paused ' || (SELECT string_agg(p.id::text, ' ' ORDER BY p.id) FROM {_PAUSES}), '')"
    " FROM {schema}outbox_sinks WHERE sink = $1)",
    "history": HISTORY,
}
_QUEUED = {
    "id": "cut.id",
    "lane": "cut.lane",
    "key_hash": "cut.key_hash",
    "attempts": "cut.attempts",
    "deferred": "cut.due_at IS NOT NULL",
    "head": "cut.blocks",
    "uncertain": "cut.uncertain",
    "size": "cut.bytes",
}
_TYPES = {
    "expired": "boolean",
    "message_id": "uuid",
    "type": "text",
    "destination": "text",
    "key": "text",
    "payload": "bytea",
    "headers": "jsonb",
    "created_at": "timestamptz",
    "expires_at": "timestamptz",
    "replay_id": "uuid",
}
_UNREAD = {name: f"NULL::{kind}" for name, kind in _TYPES.items()}
_FIRST, _LAST = (f"'{time}'::timestamptz" for time in (FIRST_TIME, LAST_TIME))
_WRITTEN = {
    **{name: f"written.{name}" for name in _TYPES},
    "expired": "coalesce(written.expires_at <= now(), false)",
    # What is too far off for Python is never.
    "expires_at": f"CASE WHEN written.expires_at BETWEEN {_FIRST} AND {_LAST} THEN written.expires_at END",
}
_READ = {name: f"CASE WHEN written.flaw IS NULL THEN {column} END" for name, column in _WRITTEN.items()}

GONE = "its row in outbox is gone"
"""The flaw of a delivery in the queue whose message was deleted."""

# Told by sizes that are stored, so that nothing large is read; what is stored in less than 1 KB is not large,
# compressed or not. The table refuses most of it; what is there all the same is from before it did, or a
# CHECK was dropped.
_FLAW = f"""CASE
                WHEN octet_length(o.payload) > {PAYLOAD_BYTES}
                    THEN 'its payload of ' || octet_length(o.payload) || ' bytes is over {PAYLOAD_BYTES}'
                WHEN pg_column_size(o.headers) > {HEADERS_TEXT_BYTES + 1_000}
                    OR pg_column_size(o.headers) > 1000
                        AND octet_length(o.headers::text) > {HEADERS_TEXT_BYTES}
                    THEN 'its headers are too large'
                WHEN jsonb_typeof(o.headers) <> 'object' THEN 'its headers are no object'
                WHEN octet_length(o.type) > {TYPE_BYTES} THEN 'its type is too long'
                WHEN octet_length(o.destination) > {DESTINATION_BYTES} THEN 'its destination is too long'
                WHEN octet_length(o.key) > {KEY_BYTES} THEN 'its key is too long'
                WHEN o.created_at NOT BETWEEN {_FIRST} AND {_LAST}
                    THEN 'its created_at is out of range: ' || o.created_at
            END"""


def _columns(fields: tuple[str, ...], expressions: Mapping[str, str]) -> str:
    """Returns a select list in the order of a named tuple's fields, which is then made by position."""
    if set(fields) != expressions.keys():
        raise TypeError(f"fields and columns differ: {sorted(set(fields) ^ expressions.keys())}")
    return ", ".join(f"{expressions[name]} AS {name}" for name in fields)


# OFFSET 0 keeps it a look-up by all four columns for each row. As the join that the planner would make
# of it, every row walks all the blocking rows of its lane.
_HELD = """EXISTS (
                    SELECT FROM {schema}outbox_queue head
                    WHERE head.sink = q.sink AND head.lane = q.lane
                      AND head.key_hash = q.key_hash AND head.blocks AND head.id < q.id
                    OFFSET 0)"""


# By destination or key. Of a whole sink the hash is null, from which nothing is known to differ. Read once.
_NOT_PAUSED = f"""q.destination_hash <> ALL (ARRAY(SELECT p.hash FROM {_PAUSES}))
                   AND q.key_hash <> ALL (ARRAY(SELECT p.hash FROM {_PAUSES}))"""


def _hashes(destinations: str) -> str:
    return f"ARRAY(SELECT hashtextextended(d, 0) FROM unnest({destinations}::text[]) AS d)"


# Of the line that is walked: a destination's own, or what all without one share.
def _of_line(apart: str) -> str:
    return f"""(q.destination_hash = walk.destination_hash
                   OR walk.destination_hash IS NULL AND q.destination_hash <> ALL ({_hashes(apart)}))"""


_IN_LINE = _of_line("$8")


DEFERRED, IN_LINE, STOP, DUE_STOP = range(4)
"""What a fetched row is to its walk: a delivery that waited for its time, or one in line; or no delivery, but
how far the walk looked, in line or at what waited for its time."""


def _fetch(flaw: str, columns: Mapping[str, str]) -> str:
    return f"""
    SELECT delivery.*, snapshot.*
    FROM (SELECT {_columns(Snapshot._fields, _SNAPSHOT)} FROM pg_current_snapshot() AS now) AS snapshot
    LEFT JOIN LATERAL (
        SELECT {_columns(Delivery._fields, {**_QUEUED, **columns})},
               CASE WHEN written.id IS NULL AND cut.branch < {STOP} THEN '{GONE}'
                    ELSE written.flaw END AS flaw,
               cut.number - 1, cut.branch,
               cut.place, CASE WHEN cut.place = $14 OR cut.is_last THEN cut.due_at::text END
        FROM (
            SELECT *, sum(weight) OVER up_to_here - weight AS before,
                   count(*) FILTER (WHERE branch < {STOP}) OVER up_to_here AS so_far
            FROM (
                SELECT due.*, walk.number, CASE WHEN due.branch < {STOP} THEN due.bytes ELSE 0 END AS weight
                FROM unnest($2::smallint[], $3::text[], $4::bigint[], $5::integer[],
                            $12::text[]::timestamptz[], $13::bigint[])
                    WITH ORDINALITY AS asked (lane, line, floor, most, due_at, due_id, number)
                CROSS JOIN LATERAL (
                    SELECT asked.lane, asked.most, asked.due_at, asked.due_id, asked.number,
                           hashtextextended(line, 0) AS destination_hash,
                           CASE WHEN snapshot.generation = $9 AND snapshot.last_id >= asked.floor
                               THEN asked.floor ELSE 0 END AS floor
                    OFFSET 0
                ) AS walk
                CROSS JOIN LATERAL (
                    (SELECT q.*, CASE WHEN q.goes_out THEN {DEFERRED} ELSE {DUE_STOP} END AS branch
                     FROM (
                         SELECT q.*, row_number() OVER by_time AS place,
                                walk.due_id > 0 AND lead(q.id) OVER by_time IS NULL AS is_last,
                                (q.blocks OR q.id <= walk.floor) AND {_IN_LINE} AND NOT {_HELD}
                                    AND {_NOT_PAUSED} AS goes_out
                         FROM {{schema}}outbox_queue q
                         WHERE q.sink = $1 AND q.lane = walk.lane AND q.due_at <= now()
                           AND (q.due_at, q.id) > (walk.due_at, walk.due_id)
                         WINDOW by_time AS (ORDER BY q.due_at, q.id)
                         ORDER BY q.due_at, q.id LIMIT $14
                     ) AS q
                     WHERE q.goes_out OR q.place = $14 OR q.is_last
                     ORDER BY q.due_at, q.id LIMIT least(walk.most, $11))
                    UNION ALL
                    (SELECT q.*, NULL, NULL, NULL, {IN_LINE} FROM (
                         SELECT * FROM {{schema}}outbox_queue q
                         WHERE q.sink = $1 AND q.lane = walk.lane AND q.id > walk.floor
                         ORDER BY q.id LIMIT $10
                     ) AS q
                     WHERE q.parked_at IS NULL AND (q.due_at IS NULL OR (q.due_at <= now() AND NOT q.blocks))
                       AND {_IN_LINE} AND NOT {_HELD} AND {_NOT_PAUSED}
                     ORDER BY q.id LIMIT walk.most)
                    UNION ALL
                    (SELECT q.*, NULL, NULL, NULL, {STOP} FROM {{schema}}outbox_queue q
                     WHERE q.sink = $1 AND q.lane = walk.lane AND q.id > walk.floor
                     ORDER BY q.id OFFSET $10 - 1 LIMIT 1)
                ) AS due
                LIMIT $6::bigint + $15::bigint
            ) AS within  -- Above the limit: a window reads on by a row, and that may be a stop.
            WINDOW up_to_here AS (ROWS UNBOUNDED PRECEDING)
        ) AS cut
        LEFT JOIN LATERAL (
            SELECT o.*, {flaw} AS flaw FROM {{schema}}outbox o
            WHERE o.id = cut.id AND cut.branch < {STOP} OFFSET 0
        ) AS written ON true
        WHERE cut.before < $7 AND cut.so_far <= $6::bigint
    ) AS delivery ON true
"""


FETCH = _fetch(_FLAW, _READ)
"""Deliveries that may go out now, of the lines given, each from its floor; and their snapshot.

Retries that are due come first within a line, with the scheduled deliveries that the floor has passed, up to
a share; a scheduled one whose time comes before takes its place in line, behind what is not sent yet. A
delivery is held while an earlier one of its key blocks, and left out while it is paused. Bytes are summed
before any payload is read. Floors count only if nobody else has ended a hold since, and no pause has begun or
ended, since what waited for it is below them, and while ids rise.

Of a line only so many rows of its lane are looked at, and only so many of what waited for its time. Where
there may be more, a row that is no delivery (`STOP`, `DUE_STOP`) says how far that was; so it does at the end
of what waited for its time, if the walk did not begin at the beginning.

Of a delivery with a flaw, whose reason is given beside it, nothing of what was written is read.
"""

OUTLINE = _fetch("NULL::text", _UNREAD)
"""The same as `FETCH` without anything that was written, for when that cannot be read."""

LOOK_BACK = f"""
    SELECT walk.lane, seen.last_id, seen.first_found
    FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS asked (lane, after, floor)
    CROSS JOIN LATERAL (
        SELECT asked.*, hashtextextended($5::text, 0) AS destination_hash
    ) AS walk
    CROSS JOIN LATERAL (
        SELECT max(q.id) AS last_id,
               min(q.id) FILTER (
                   WHERE q.due_at IS NULL AND q.parked_at IS NULL AND {_of_line("$6")} AND NOT {_HELD}
                     AND {_NOT_PAUSED}
               ) AS first_found
        FROM (
            SELECT * FROM {{schema}}outbox_queue q
            WHERE q.sink = $1 AND q.lane = walk.lane AND q.id > walk.after AND q.id <= walk.floor
            ORDER BY q.id LIMIT $7
        ) AS q
    ) AS seen
"""
"""What could go out in a line but is below its floor, since somebody changed it by hand.

Of each lane some rows are looked at, between two ids; null where none is left.
"""
