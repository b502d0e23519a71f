"""What was parked, by cause: an error but for what differs by row, of one type, to one destination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.errors import OperatorError
from outbox.operate.integrity import run
from outbox.operate.pages import COUNTED, Count
from outbox.operate.state import Selection
from outbox.operate.statements import BY_THE_KEY, GROUPS

_MOST_GROUPS = 500
_UNSIGNED = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Deliveries that were parked for one cause."""

    group: str
    """By which commands know it."""
    sink: str
    destination: str | None
    """None where its message is gone; also None of what was parked before causes were told apart."""
    type: str | None
    rows: Count
    first: datetime
    """When the first of them was parked."""
    last: datetime
    example: int
    """The id of the last one."""
    error: str
    """Of the last one."""


def group_name(fingerprint: int) -> str:
    """Returns what commands call the group of a fingerprint."""
    return f"{fingerprint % _UNSIGNED:016x}"


def fingerprint_of(name: str) -> int:
    """Returns the fingerprint of the group of that name; raises `OperatorError` if it is none."""
    try:
        number = int(name, 16)
    except ValueError:
        number = -1
    if not 0 <= number < _UNSIGNED:
        raise OperatorError(f"{name} is no group: see `outbox groups`")
    return number - _UNSIGNED if number >= _UNSIGNED // 2 else number


async def groups(connection: AsyncConnection, selection: Selection) -> Sequence[Group]:
    """Returns the groups of what is parked, largest first: of a sink, destination, type or error if given.

    Of 500 groups at the most, each counted to 10,000.
    """
    await run(connection, BY_THE_KEY)
    found = [_group(row) for row in await run(connection, GROUPS, _MOST_GROUPS, COUNTED + 1)]
    return [group for group in found if _matches(group, selection)]


def _group(row: Any) -> Group:
    # What was parked by an older schema is one group, whatever it is.
    is_told = row.fingerprint != 0
    return Group(
        group=group_name(row.fingerprint),
        sink=row.sink,
        destination=row.destination if is_told else None,
        type=row.type if is_told else None,
        rows=Count(min(row.rows, COUNTED), row.rows > COUNTED),
        first=row.first,
        last=row.last,
        example=row.id,
        error=row.last_error,
    )


def _matches(group: Group, selection: Selection) -> bool:
    exact = (
        (selection.sink, group.sink),
        (selection.destination, group.destination),
        (selection.type, group.type),
        (selection.group, fingerprint_of(group.group)),
    )
    same = all(wanted is None or wanted == there for wanted, there in exact)
    return same and (selection.error or "").lower() in group.error.lower()
