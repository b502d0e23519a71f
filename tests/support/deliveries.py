"""Deliveries as the pump would read them back, for tests of sinks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import uuid4

from outbox.message import Delivery
from tests.support.kafka import Record

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
        size=0,
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


def ids(deliveries: Iterable[Delivery]) -> list[str]:
    """Their message ids."""
    return [str(delivery.message_id) for delivery in deliveries]


def arrived(records: Iterable[Record]) -> list[str]:
    """The message ids of these records."""
    return [record.headers["message_id"].decode() for record in records]
