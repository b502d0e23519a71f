"""What a sink is: the protocol that `kafka`, `redis` and your own implement.

A sink knows its broker and nothing of the table. It classifies each failure (see
`outbox.errors`); the pump decides what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from outbox.message import Delivery, Result


class Sink(Protocol):
    """Sends deliveries to one broker.

    A class named in `OUTBOX_SINKS` is called with one argument, a mapping of its own settings:
    what `OUTBOX_<NAME>_<OPTION>` holds under `option`, as strings.
    """

    async def start(self) -> None:
        """Connect. Raises `Unavailable` while the broker cannot be reached; is called again then."""

    async def send(self, deliveries: Sequence[Delivery]) -> Sequence[Result]:
        """Send a batch, which is in id order within each key; one result per delivery, in order.

        Nothing of a key may go out after a failure within that key (`key_hash`): such deliveries
        are `Unsent`. Several sends run at once, never with the same key in two of them. A send ends by
        itself within the sink's send timeout, and what it could not confirm by then is uncertain
        and never sent by it afterwards. An exception it raises counts for the whole batch.
        """

    async def stop(self) -> None:
        """Disconnect, within a few seconds whatever the broker does. Safe to call twice."""
