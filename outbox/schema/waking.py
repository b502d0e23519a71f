"""How whoever has committed messages wakes the relays that wait: by a notification without content."""

from __future__ import annotations

CHANNEL = "'outbox_' || CAST('{schema}outbox' AS regclass)::oid"
"""One for each outbox table of a database, whatever its schema is called."""

WAKE = f"pg_notify({CHANNEL}, '')"
