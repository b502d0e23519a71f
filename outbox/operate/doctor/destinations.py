"""Where messages go now: what the checks of sinks ask their servers about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from outbox.operate.doctor.patient import Patient

# Of what is in line, the first and the last of each lane; of what was written, the newest.
_DESTINATIONS = """
    WITH RECURSIVE place AS (
        (SELECT sink, lane FROM {schema}outbox_queue ORDER BY sink, lane LIMIT 1)
        UNION ALL
        SELECT following.* FROM place CROSS JOIN LATERAL (
            SELECT q.sink, q.lane FROM {schema}outbox_queue q
            WHERE (q.sink, q.lane) > (place.sink, place.lane) ORDER BY q.sink, q.lane LIMIT 1
        ) AS following
    ), looked AS MATERIALIZED (
        SELECT each.id, true AS pending FROM (SELECT sink, lane FROM place LIMIT 1000) AS place
        CROSS JOIN LATERAL (
            (SELECT id FROM {schema}outbox_queue q
             WHERE q.sink = place.sink AND q.lane = place.lane ORDER BY id LIMIT 10)
            UNION
            (SELECT id FROM {schema}outbox_queue q
             WHERE q.sink = place.sink AND q.lane = place.lane ORDER BY id DESC LIMIT 10)
        ) AS each
        UNION ALL
        (SELECT id, false FROM {schema}outbox ORDER BY id DESC LIMIT 1000)
    )
    SELECT state.sink, state.destination, bool_or(looked.pending) AS pending
    FROM looked CROSS JOIN LATERAL (
        SELECT s.sink, s.destination FROM {schema}outbox_state s WHERE s.id = looked.id OFFSET 0
    ) AS state
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""
_MOST = 100
"""So many of each sink."""


async def destinations(patient: Patient) -> Mapping[str, Sequence[str]]:
    """Returns by sink where its deliveries go, those that wait first."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in await patient.ask(_DESTINATIONS):
        found[row.sink].append(row.destination)
    return {sink: names[:_MOST] for sink, names in found.items()}
