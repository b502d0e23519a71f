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
    """The messages of one sink; those of a key are expected in the order in which they were entered."""

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
        self._keys: set[str] = set()
        self._waiting: dict[str, dict[UUID, float]] = {}
        self._overtaken: dict[UUID, float] = {}
        self._withdrawn: set[UUID] = set()

    @property
    def keys(self) -> int:
        """How many different keys the messages had."""
        return len(self._keys)

    @property
    def waiting(self) -> int:
        """How many messages have not arrived and may still."""
        return self.written - self.arrived - self.expired

    @property
    def oldest(self) -> float | None:
        """When the oldest message that has not arrived was entered (monotonic); None if there is none."""
        first = (next(iter(key.values())) for key in self._waiting.values())
        return min((*first, *self._overtaken.values()), default=None)

    @property
    def missing(self) -> Mapping[UUID, float]:
        """The messages that have not arrived, and when each was entered (monotonic)."""
        waiting = {message: since for key in self._waiting.values() for message, since in key.items()}
        return waiting | self._overtaken

    def enter(self, key: str, message_id: UUID) -> None:
        """Enters a message that is about to be committed."""
        self.written += 1
        self._keys.add(key)
        self._waiting.setdefault(key, {})[message_id] = monotonic()

    def withdraw(self, key: str, message_id: UUID) -> None:
        """Takes back a message whose transaction was rolled back."""
        self.written -= 1
        self._withdrawn.add(message_id)
        if self.awaits(key, message_id):
            self._forget(key, message_id)
        else:
            self.arrived -= 1
            self.phantoms += 1

    def expire(self, message_id: UUID) -> None:
        """Takes note that a message came too late and is not sent; one that was never entered is ignored."""
        key = next((key for key, waiting in self._waiting.items() if message_id in waiting), None)
        if key is not None:
            self._forget(key, message_id)
            self.expired += 1
        elif self._overtaken.pop(message_id, None) is not None:
            self.expired += 1

    def knows(self, key: str) -> bool:
        """Returns True if messages of this key were entered; else it is somebody else's."""
        return key in self._keys

    def awaits(self, key: str, message_id: UUID) -> bool:
        """Returns True if the message was entered and has not arrived."""
        return message_id in self._waiting.get(key, ()) or message_id in self._overtaken

    def see(self, key: str, message_id: UUID) -> None:
        """Takes note that a message arrived, with a key that is known."""
        waiting = self._waiting.get(key, {})
        if message_id in self._withdrawn:
            self.phantoms += 1
        elif message_id in waiting:
            for earlier in list(takewhile(lambda each: each != message_id, waiting)):
                self._overtaken[earlier] = self._forget(key, earlier)
            self._count(self._forget(key, message_id))
        elif message_id in self._overtaken:
            self.disordered += 1
            self._count(self._overtaken.pop(message_id))
        else:
            self.repeated += 1

    def _forget(self, key: str, message_id: UUID) -> float:
        waiting = self._waiting[key]
        since = waiting.pop(message_id)
        if not waiting:
            del self._waiting[key]
        return since

    def _count(self, since: float) -> None:
        self.arrived += 1
        self.lags.append(monotonic() - since)
