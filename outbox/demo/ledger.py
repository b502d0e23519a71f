"""What was written for one sink and what arrived there: pure bookkeeping, message by message.

The stream enters each message before its transaction commits; a consumer says what it sees. What has
arrived is forgotten, so a ledger stays small however long the stream flows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import takewhile
from time import monotonic
from uuid import UUID

_LAGS = 10_000


class Ledger:
    """One sink's. The messages of a key are expected in the order in which they were entered."""

    def __init__(self, sink: str) -> None:
        self.sink = sink
        self.written = 0
        """Entered, and not withdrawn."""
        self.arrived = 0
        """Of those, each counted once."""
        self.repeated = 0
        """Arrivals of what had arrived before."""
        self.disordered = 0
        """First arrivals after a later message of the same key."""
        self.phantoms = 0
        """Arrivals of what was rolled back."""
        self.expired = 0
        """Too late to be sent."""
        self.lags: deque[float] = deque(maxlen=_LAGS)
        """Of the last arrivals: seconds from just before the commit."""
        self._waiting: dict[str, dict[UUID, float]] = {}
        self._overtaken: dict[UUID, float] = {}
        self._withdrawn: set[UUID] = set()

    @property
    def keys(self) -> int:
        """How many keys there were."""
        return len(self._waiting)

    @property
    def waiting(self) -> int:
        """How many have not arrived and may still."""
        return self.written - self.arrived - self.expired

    @property
    def missing(self) -> Mapping[UUID, float]:
        """Those, and when each was entered (monotonic)."""
        waiting = {message: since for key in self._waiting.values() for message, since in key.items()}
        return waiting | self._overtaken

    def enter(self, key: str, message_id: UUID) -> None:
        """It is about to be committed."""
        self.written += 1
        self._waiting.setdefault(key, {})[message_id] = monotonic()

    def withdraw(self, key: str, message_id: UUID) -> None:
        """It was rolled back."""
        self.written -= 1
        self._waiting[key].pop(message_id, None)
        self._withdrawn.add(message_id)

    def expire(self, message_id: UUID) -> None:
        """It came too late and is not sent; that of others is ignored."""
        places = (self._overtaken, *self._waiting.values())
        self.expired += any(place.pop(message_id, None) is not None for place in places)

    def knows(self, key: str) -> bool:
        """Whether messages of this key were entered; else it is somebody else's."""
        return key in self._waiting

    def awaits(self, key: str, message_id: UUID) -> bool:
        """Whether it was entered and has not arrived."""
        return message_id in self._waiting.get(key, ()) or message_id in self._overtaken

    def see(self, key: str, message_id: UUID) -> None:
        """It arrived, with a key that is known."""
        waiting = self._waiting[key]
        if message_id in self._withdrawn:
            self.phantoms += 1
        elif message_id in waiting:
            for earlier in list(takewhile(lambda each: each != message_id, waiting)):
                self._overtaken[earlier] = waiting.pop(earlier)
            self._count(waiting.pop(message_id))
        elif message_id in self._overtaken:
            self.disordered += 1
            self._count(self._overtaken.pop(message_id))
        else:
            self.repeated += 1

    def _count(self, since: float) -> None:
        self.arrived += 1
        self.lags.append(monotonic() - since)
