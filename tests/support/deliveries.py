"""Deliveries as the pump would read them back, for tests of sinks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import uuid4

from outbox.message import Delivery

_ids = count(1)


def delivery(
    destination: str, key: str | None = None, *, headers: Mapping[str, Any] | None = None, **fields: Any
) -> Delivery:
    """A delivery with an id higher than all before; `fields` replace what it would have by itself."""
    number = next(_ids)
    made = Delivery(
        id=number,
        lane=0,
        key_hash=hash((destination, number if key is None else key)),
        attempts=0,
        deferred=False,
        head=False,
        uncertain=False,
        expired=False,
        bytes=0,
        message_id=uuid4(),
        type="essay.slot.assigned",
        destination=destination,
        key=key,
        payload=b"%d" % number,
        headers=json.dumps(headers or {}),
        created_at=datetime.now(UTC),
        expires_at=None,
        replay_id=None,
    )
    return made._replace(**fields)
