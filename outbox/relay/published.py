"""What all relays and the view must agree on of a sink's settings: whose count, and who is told.

The relay that started last rules: it writes its own when it starts, and never again. What differs is told by
it and by those that are overruled, so that two relays with different settings do not take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from outbox.observe import emit
from outbox.relay.batch import BEFORE_ALL, Due
from outbox.relay.breakers import SinkBreakers
from outbox.relay.statements import GONE
from outbox.schema import in_schema
from outbox.schema.lookup import at
from outbox.settings import Settings

PUBLISH = """
    INSERT INTO {schema}outbox_sinks (sink, stuck_after, on_park, gap_note, holds_ended)
    VALUES ($1, $2, $3, $4, (1000000 * extract(epoch FROM clock_timestamp()))::bigint)
    ON CONFLICT (sink) DO UPDATE
    SET stuck_after = excluded.stuck_after, on_park = excluded.on_park, gap_note = excluded.gap_note,
        updated_at = clock_timestamp(), holds_ended = outbox_sinks.holds_ended + 1
    WHERE (outbox_sinks.stuck_after, outbox_sinks.on_park, outbox_sinks.gap_note)
        IS DISTINCT FROM (excluded.stuck_after, excluded.on_park, excluded.gap_note) AND $5
"""
"""What the view needs of a sink's settings. Where its row was deleted, its counter is what it never was."""

FOLLOW_ROWS = 10_000
"""Looked at in one statement, so that none takes long, however many are parked."""

# In words that no index of what is parked has, or one by the sink would be read as a whole for each row. And
# all rows before the sink's, as operators do, or each could wait for the other.
FOLLOW = f"""
    WITH looked AS MATERIALIZED (
        SELECT sink, lane, id, parked_at FROM {{schema}}outbox_queue
        WHERE parked_at IS NOT NULL AND (parked_at, id) > ($2::text::timestamptz, $3::bigint)
        ORDER BY parked_at, id LIMIT {FOLLOW_ROWS}
    ), followed AS (
        UPDATE {{schema}}outbox_queue q SET blocks = (s.on_park = 'hold')
        FROM looked, {{schema}}outbox_sinks s
        WHERE s.sink = $1 AND looked.sink = s.sink
          AND {at("looked", sink="looked.sink")} AND num_nulls(q.parked_at) = 0
          AND q.blocks <> (s.on_park = 'hold') AND q.last_error <> '{GONE}'
        RETURNING q.id
    ), told AS (
        UPDATE {{schema}}outbox_sinks SET holds_ended = holds_ended + 1
        WHERE sink = $1 AND (SELECT count(*) FROM followed) > 0
    )
    SELECT parked_at::text, id FROM looked ORDER BY parked_at DESC, id DESC LIMIT 1
"""
"""Held keys follow the park policy when it changes: so many of what is parked, from a place on.

Answers the last place, or nothing at the end. The owners of lanes are told with each part of it, in its own
transaction: what waited behind it is below their floors.
"""

IN_FORCE = """
    SELECT stuck_after, on_park, gap_note,
           ARRAY(SELECT name FROM {schema}outbox_relays
                 WHERE relay_id <> $2 AND expires_at > clock_timestamp() AND $1 = ANY (sinks)
                 ORDER BY started_at) AS others
    FROM {schema}outbox_sinks WHERE sink = $1
"""

TELL = """
    UPDATE {schema}outbox_relays SET breakers = (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'sink', sink, 'destination', destination, 'reason', reason,
            'since', clock_timestamp() - seconds::double precision * interval '1 second'
        )), '[]')
        FROM unnest($2::text[], $3::text[], $4::text[], $5::text[])
            AS open (sink, destination, reason, seconds)
    )
    WHERE relay_id = $1
"""
"""Which breakers of a relay are open, for whoever asks why something waits."""


class OpenBreakers:
    """Tells the database of this relay's open breakers, when they change."""

    def __init__(self, breakers: Mapping[str, SinkBreakers], relay: UUID, schema: str | None) -> None:
        self._breakers = breakers
        self._relay = relay
        self._statement = in_schema(TELL, schema)
        self._told: list[tuple[str, str | None, str]] = []

    async def tell(self, connection: asyncpg.Connection) -> None:
        """Tells it where it is not what was told last."""
        opened = [
            (sink, name, reason, str(seconds))
            for sink, breakers in self._breakers.items()
            for name, (seconds, reason) in breakers.reasons().items()
        ]
        now = [each[:3] for each in opened]
        if now != self._told:
            columns = [list(column) for column in zip(*opened, strict=True)] or [[], [], [], []]
            await connection.execute(self._statement, self._relay, *columns)
            self._told = now


class Published:
    """One relay's part in it."""

    def __init__(self, settings: Settings, relay: UUID) -> None:
        self._settings = settings
        self._relay = relay
        self._started = False
        self._to_follow: set[str] = set(settings.sink_names)
        """Sinks whose parked deliveries are still to be gone through: another relay may have ended before."""
        self._changed: set[str] = set()
        """Those that are gone through once more, for what was parked at that very moment."""

    async def begin(self, connection: asyncpg.Connection) -> None:
        """Puts this relay's settings in force when it starts, and only then."""
        for sink in self._settings.sink_names:
            if not self._started:
                for difference in await self._differences(connection, sink):
                    self._changed.add(sink)
                    emit("settings.changed", **difference)
            await self._publish(connection, sink, overrule=not self._started)
        self._started = True

    async def check(self, connection: asyncpg.Connection) -> None:
        """Tells it again where somebody has deleted it, and warns where another relay's settings rule."""
        for sink in self._settings.sink_names:
            await self._publish(connection, sink, overrule=False)
            for difference in await self._differences(connection, sink):
                emit("settings.overruled", **difference)

    async def follow(self, connection: asyncpg.Connection, ending: asyncio.Event) -> None:
        """Has what is parked hold its key, or not, as the policy in force says, until `ending`.

        A relay does it after it has started, and once more where it changed the policy.
        """
        for sink in self._settings.sink_names:
            if sink in self._to_follow:
                await self._follow(connection, sink, ending)
        if not ending.is_set():
            self._to_follow, self._changed = self._changed, set()

    async def _follow(self, connection: asyncpg.Connection, sink: str, ending: asyncio.Event) -> None:
        place: Due | None = BEFORE_ALL
        while place and not ending.is_set():
            place = await connection.fetchrow(self._statement(FOLLOW), sink, *place)

    async def _publish(self, connection: asyncpg.Connection, sink: str, *, overrule: bool) -> None:
        await connection.execute(self._statement(PUBLISH), sink, *self._of(sink).values(), overrule)

    async def _differences(self, connection: asyncpg.Connection, sink: str) -> list[dict[str, Any]]:
        found = await connection.fetchrow(self._statement(IN_FORCE), sink, self._relay)
        return list(self._compared(sink, found)) if found else []

    def _compared(self, sink: str, found: Any) -> Iterator[dict[str, Any]]:
        for setting, mine in self._of(sink).items():
            if found[setting] != mine:
                yield {
                    "sink": sink,
                    "setting": setting,
                    "mine": str(mine),
                    "other": str(found[setting]),
                    "relays": found["others"],
                }

    def _of(self, sink: str) -> dict[str, Any]:
        own = self._settings.sink(sink)
        return {
            "stuck_after": timedelta(seconds=own.stuck_after_seconds),
            "on_park": own.on_park,
            "gap_note": own.gap_note,
        }

    def _statement(self, statement: str) -> str:
        return in_schema(statement, self._settings.database_schema)
