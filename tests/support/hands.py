"""What a superuser's hand may do to our tables: the actions, and which messages they were about."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import asyncpg

_WRITTEN = "message_id, type, sink, destination, key, payload"
_SOME_MESSAGES = "ARRAY(SELECT id FROM outbox ORDER BY random() LIMIT 5)"
_SOME_PENDING = "ARRAY(SELECT id FROM outbox_queue ORDER BY random() LIMIT 5)"
_LOWEST_PENDING = "ARRAY(SELECT id FROM outbox_queue ORDER BY id LIMIT 3)"
_AS_QUEUED = "sink, lane, id, key_hash, destination_hash, bytes, first_due_at"
_CHANGE = f"UPDATE outbox_queue SET {{change}} WHERE id = ANY ({_SOME_PENDING}) RETURNING id"

ACTIONS: Mapping[str, str] = {
    "delete messages": f"DELETE FROM outbox WHERE id = ANY ({_SOME_MESSAGES}) RETURNING id",
    "delete messages that wait": f"DELETE FROM outbox WHERE id = ANY ({_LOWEST_PENDING}) RETURNING id",
    "delete from the queue": f"DELETE FROM outbox_queue WHERE id = ANY ({_LOWEST_PENDING}) RETURNING id",
    # What has a receipt arrived before, so nothing of its message is at stake.
    "delete receipts": f"""
        DELETE FROM outbox_receipts WHERE id = ANY ({_SOME_MESSAGES}) RETURNING NULL::bigint""",
    "delete lanes": "DELETE FROM outbox_lanes WHERE lane < 20 RETURNING NULL::bigint",
    "queue again": f"""
        INSERT INTO outbox_queue ({_AS_QUEUED})
        SELECT sink, lane, id, key_hash, hashtextextended(destination, 0), 1, now()
        FROM outbox WHERE id = ANY ({_SOME_MESSAGES}) ON CONFLICT DO NOTHING RETURNING id""",
    "queue what was never written": f"""
        INSERT INTO outbox_queue ({_AS_QUEUED})
        SELECT sink, lane, nextval('outbox_id_seq'), key_hash, destination_hash, bytes, first_due_at
        FROM outbox_queue LIMIT 3 RETURNING id""",
    "write with ids that are free": f"""
        INSERT INTO outbox (id, {_WRITTEN}) OVERRIDING SYSTEM VALUE
        SELECT free.id, gen_random_uuid(), type, sink, destination, key, payload
        FROM (SELECT * FROM outbox ORDER BY id DESC LIMIT 1) AS like_this, (
            SELECT id FROM (
                SELECT id FROM outbox_id_seq, generate_series(1, last_value) AS id
                EXCEPT SELECT id FROM outbox EXCEPT SELECT id FROM outbox_receipts
                EXCEPT SELECT id FROM outbox_queue
            ) AS unused ORDER BY random() LIMIT 2
        ) AS free
        RETURNING id""",
    "write as a replica": f"""
        INSERT INTO outbox ({_WRITTEN})
        SELECT gen_random_uuid(), type, sink, destination, key, payload
        FROM outbox ORDER BY random() LIMIT 5 RETURNING id""",
    "change keys": f"UPDATE outbox SET key = 'by hand' WHERE id = ANY ({_SOME_PENDING}) RETURNING id",
    "put into another lane": _CHANGE.format(change="lane = (lane + 1) % 64"),
    "postpone": _CHANGE.format(change="due_at = now() + interval '300 ms', parked_at = NULL, blocks = false"),
    "hold": _CHANGE.format(
        change="due_at = now() + interval '300 ms', parked_at = NULL, blocks = true, last_error = 'by hand'"
    ),
    "park": _CHANGE.format(
        change="parked_at = now(), due_at = NULL, blocks = true, last_error = 'by hand', attempts = 3"
    ),
    "let go": _CHANGE.format(change="due_at = NULL, parked_at = NULL, blocks = false"),
    **{
        f"truncate {table}": f"WITH there AS (SELECT {id_} AS id FROM {table}) SELECT * FROM there"
        for table, id_ in {
            "outbox_queue": "id",
            "outbox_receipts": "NULL::bigint",
            "outbox_lanes": "NULL::bigint",
            "outbox_relays": "NULL::bigint",
            "outbox_sinks": "NULL::bigint",
            "outbox_walks": "NULL::bigint",
            "outbox_amiss": "NULL::bigint",
        }.items()
    },
}
"""Each with its statement, which returns the ids of the messages that it is about."""


_HELD = """
    SELECT q.id FROM outbox_queue q WHERE EXISTS (
        SELECT FROM outbox_queue head
        WHERE (head.sink, head.key_hash) = (q.sink, q.key_hash) AND head.blocks AND head.id < q.id
    )
"""
_ENDS_HOLDS = ("delete from the queue", "put into another lane", "postpone", "let go")
"""What may end a hold without telling its lane's owner: newer deliveries may overtake those that waited."""


class Hands:
    """Does one thing after another, and remembers which messages that was about."""

    def __init__(self, connection: asyncpg.Connection, random: Random) -> None:
        self._connection = connection
        self._random = random
        self.touched: set[int] = set()
        """The ids of all messages that an action was about."""
        self.done: list[str] = []
        """The names of the actions."""

    async def act(self, name: str | None = None) -> None:
        """Does this, or something at random."""
        name = name or self._random.choice(sorted(ACTIONS))
        table = name.removeprefix("truncate ")
        async with self._connection.transaction():
            if table != name:
                await self._connection.execute(f"LOCK TABLE {table}")
            if name == "write as a replica":
                await self._connection.execute("SET LOCAL session_replication_role = replica")
            rows = await self._connection.fetch(_HELD) if name in _ENDS_HOLDS else []
            rows += await self._connection.fetch(ACTIONS[name])
            if table != name:
                await self._connection.execute(f"TRUNCATE {table}")
        self.done.append(name)
        self.touched.update(id_ for (id_,) in rows if id_ is not None)
