"""Connections that nobody has been let in on yet: counted from accept, of each address and in all.

A place is kept until the socket is let in, or gone. One connection too many takes the place of the oldest on
which no request came yet: who asks at once is heard, however many are silent.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from outbox.huleedu.gateway import metrics


class Newcomer(Protocol):
    """What is asked of a connection here."""

    silent: bool
    """Whether no request came on it yet."""

    def cut_off(self) -> None:
        """Ends the connection at once."""


class Newcomers:
    """At most `most` of them in all, and `most_of_one` of one address."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._address: dict[Newcomer, str | None] = {}
        self._of: Counter[str] = Counter()

    def add(self, newcomer: Newcomer, address: str | None) -> None:
        """Gives a connection a place. The address of a proxy, which has many behind it, is None."""
        self._put(newcomer, address)
        if address and self._of[address] > self._most_of_one:
            self._make_room("address", address)
        if len(self._address) > self._most:
            self._make_room("all", None)

    def belongs_to(self, newcomer: Newcomer, address: str) -> bool:
        """Takes note of the address that a proxy tells; returns False if that has too many."""
        if newcomer not in self._address:
            return False
        self.remove(newcomer)
        self._put(newcomer, address)
        return self._of[address] <= self._most_of_one

    def remove(self, newcomer: Newcomer) -> None:
        """Takes note that a connection was let in, or is gone. Safe to call twice."""
        address = self._address.pop(newcomer, None)
        if address:
            self._of[address] -= 1
            if not self._of[address]:
                del self._of[address]
        metrics.UNAUTHENTICATED.set(len(self._address))

    def cut_off(self) -> None:
        """Ends all of them."""
        for newcomer in list(self._address):
            newcomer.cut_off()

    def _put(self, newcomer: Newcomer, address: str | None) -> None:
        self._address[newcomer] = address
        if address:
            self._of[address] += 1
        metrics.UNAUTHENTICATED.set(len(self._address))

    def _make_room(self, scope: str, address: str | None) -> None:
        """Cuts off the oldest silent one; the newest, which is the last in line, if no other is silent."""
        metrics.CROWDED_OUT.labels(scope).inc()
        for newcomer, its in self._address.items():
            if newcomer.silent and (address is None or its == address):
                self.remove(newcomer)
                newcomer.cut_off()
                return
