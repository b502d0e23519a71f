"""The note that tells a destination's readers of a gap: a delivery that they will not get.

Whoever expires, skips or parks deliveries writes it in the same statement, as a new row of `outbox`, so that
a crash loses neither and any relay sends it. It has no key, since a parked head would hold it, and no expiry.
"""

from __future__ import annotations

NOTE = "outbox.gap_note"
"""The type of a note. There is never a note for a note."""

NOTE_BYTES = 10_000
"""The longest text of a note."""

# A UUID of version 7, which PostgreSQL itself makes from its 18th version on: of version 4, with the time in
# the first 48 bits, and two bits of the version set.
_NEW_ID = """encode(set_bit(set_bit(overlay(
            uuid_send(gen_random_uuid()) PLACING
            substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6
        ), 52, 1), 53, 1), 'hex')::uuid"""


def note_gaps(lost: str) -> str:
    """Returns the INSERT of a note for each destination of the CTE `lost` (sink, id), unless one waits there.

    A sink that has no text for it, or one that is too long, gets none. Two statements at once may both write
    one, which is harmless. What somebody else wrote under its type, and may wait for long, is none.
    """
    return f"""
        INSERT INTO {{schema}}outbox (message_id, type, sink, destination, payload)
        SELECT {_NEW_ID}, '{NOTE}', gap.sink, gap.destination, convert_to(gap.gap_note, getdatabaseencoding())
        FROM (
            SELECT DISTINCT s.sink, written.destination, s.gap_note
            FROM {lost}
            JOIN {{schema}}outbox_sinks s
              ON s.sink = {lost}.sink AND octet_length(s.gap_note) BETWEEN 1 AND {NOTE_BYTES}
            CROSS JOIN LATERAL (
                SELECT o.destination FROM {{schema}}outbox o
                WHERE o.id = {lost}.id AND o.type <> '{NOTE}' OFFSET 0
            ) AS written
        ) AS gap
        WHERE NOT EXISTS (
            SELECT FROM (
                SELECT o.sink, o.lane, o.id FROM {{schema}}outbox o
                WHERE o.type = '{NOTE}' AND o.sink = gap.sink AND o.destination = gap.destination
                  AND o.key IS NULL AND o.available_at IS NULL AND o.expires_at IS NULL
                ORDER BY o.id DESC LIMIT 1
            ) AS newest
            JOIN {{schema}}outbox_queue q USING (sink, lane, id)
            WHERE q.parked_at IS NULL
        )"""
