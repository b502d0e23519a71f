"""A clock that a test moves."""

from __future__ import annotations


class Clock:
    """Says `now`, in seconds, until the test says otherwise."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now
