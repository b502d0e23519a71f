"""When a pump looks again: at once after a full batch, soon after some, ever later while idle.

Where somebody else tells it of what is written, there is no need to look soon in vain.
"""

from __future__ import annotations


class Wake:
    """The wait before the next look at the table, in seconds; doubles with each look in vain."""

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest = shortest
        self._longest = longest
        self._wait = shortest

    def after(self, rows: int, *, more: bool, watched: bool = False) -> float:
        """Returns how long to wait after a look that settled so many rows.

        `more`: the next finds more; `watched`: somebody wakes the pump when something is written.
        """
        if rows or more:
            self._wait = self._shortest
            return 0.0 if more else self._shortest
        wait = self._longest if watched else self._wait
        self._wait = min(wait * 2.0, self._longest)
        return wait
