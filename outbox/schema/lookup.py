"""How rows are looked up by the keys that a statement brings, whatever the statistics say.

By equal signs the planner may read all of a table for each key instead, where its statistics are from when
the table was empty: as the queue is when a backlog comes after a quiet hour. `= ANY` of a value that depends
on the key, which is in no order, leaves it nothing but the look-up.
"""

from __future__ import annotations


def is_one(column: str, value: str) -> str:
    """Returns the condition that a column is this value, which depends on the key."""
    return f"{column} = ANY (ARRAY[{value}])"


def is_parked(row: str) -> str:
    """Returns the condition that a row is parked, in terms that only the index of parked keys has.

    The others of what is parked would each be read as a whole, where statistics say that little is.
    """
    return f"coalesce({row}parked_at, '-infinity') > '-infinity'"


def at(place: str, *, row: str = "q", sink: str = "$1") -> str:
    """Returns the condition that a row of the queue is the one at a place, which has a lane and an id.

    Whatever else is joined by the lane or the id needs `is_one` too, or the planner looks rows up by that.
    """
    depends = f"CASE WHEN {place}.id IS NOT NULL THEN {sink} END"
    return f"{is_one(f'{row}.sink', depends)} AND {row}.lane = {place}.lane AND {row}.id = {place}.id"
