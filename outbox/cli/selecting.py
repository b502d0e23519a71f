"""How commands say which deliveries they mean."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import reduce
from typing import Any, TypeVar
from uuid import UUID

import click
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.cli.output import age, print_table
from outbox.errors import OperatorError
from outbox.operate import DeliveryState, Selection, connect
from outbox.operate.groups import fingerprint_of, group_name
from outbox.settings import Settings
from outbox.settings.values import Seconds

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def _name(value: str) -> int | UUID:
    try:
        return int(value) if value.isdecimal() else UUID(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither an id (a number) nor a message id (a UUID)."
        ) from None


def names(*, required: bool = False) -> Callable[[F], F]:
    """Makes the argument that names deliveries one by one."""
    return click.argument("names", nargs=-1, required=required, type=_name, metavar="[ID|MESSAGE_ID]...")


def _group(value: str) -> int:
    try:
        return fingerprint_of(value)
    except OperatorError as error:
        raise click.BadParameter(str(error)) from None


def time_span(value: str) -> timedelta:
    """Returns a duration as options take it; raises `BadParameter` where it is none."""
    try:
        return timedelta(seconds=_SECONDS.validate_python(value))
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is no duration, like 90s, 15m, 12h or 7d.") from None


_SECONDS = TypeAdapter(Seconds)
_OF_CAUSE = (
    click.option("--sink", help="Only this sink."),
    click.option("--destination", help="Only this topic or channel."),
    click.option("--type", help="Only this type of message."),
    click.option("--error", help="Only where the last error contains this."),
)
_OF_DELIVERY = (
    click.option("--key", help="Only this key."),
    click.option("--group", type=_group, metavar="GROUP", help="Only this group: see outbox groups."),
    click.option("--older-than", type=time_span, metavar="AGE", help="Only what was written longer ago: 7d."),
    click.option("--newer-than", type=time_span, metavar="AGE", help="Only what was written since."),
)


def filters(command: F) -> F:
    """Adds the options that narrow a selection."""
    return _adding((*_OF_CAUSE, *_OF_DELIVERY), command)


def filters_of_causes(command: F) -> F:
    """Adds those of them that are the same for all of a group."""
    return _adding(_OF_CAUSE, command)


def _adding(options: Sequence[Callable[[F], F]], command: F) -> F:
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)


def words(selection: Selection) -> list[str]:
    """Returns the options that make this selection."""
    ages = {"older-than": selection.older_than, "newer-than": selection.newer_than}
    given = {name: getattr(selection, name) for name in ("sink", "destination", "type", "error", "key")}
    if selection.group is not None:
        given["group"] = group_name(selection.group)
    given |= {name: f"{age.total_seconds():g}s" for name, age in ages.items() if age is not None}
    said = [f"--{name}={shlex.quote(value)}" for name, value in given.items() if value is not None]
    return [*(f"--state={state}" for state in selection.states), *said]


def named(names: Sequence[int | UUID], **conditions: Any) -> Selection:
    """Returns the selection of the deliveries of these names, narrowed by conditions."""
    return Selection(
        ids=[name for name in names if isinstance(name, int)],
        message_ids=[name for name in names if isinstance(name, UUID)],
        **conditions,
    )


def ask(settings: Settings, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Puts a question to the database, or does something there; returns what came of it."""

    async def answer() -> T:
        async with connect(settings) as connection:
            return await question(connection)

    return asyncio.run(answer())


def _failure(delivery: DeliveryState) -> str | None:
    arrived = " (may have arrived)" if delivery.uncertain else ""
    return f"{delivery.last_error}{arrived}" if delivery.last_error else None


_COLUMNS: Mapping[str, Callable[[DeliveryState], Any]] = {
    "id": lambda each: each.id,
    "message": lambda each: each.message_id,
    "sink": lambda each: each.sink,
    "destination": lambda each: each.destination,
    "key": lambda each: each.key,
    "type": lambda each: each.type,
    "lane": lambda each: each.lane,
    "state": lambda each: each.state,
    "written": lambda each: each.created_at,
    "due for": lambda each: age(each.first_due_at),
    "next": lambda each: each.due_at,
    "parked": lambda each: each.parked_at,
    "settled": lambda each: each.settled_at,
    "attempts": lambda each: each.attempts,
    "uncertain": lambda each: each.uncertain,
    "correlation": lambda each: each.correlation_id,
    "error": _failure,
}
COLUMNS = tuple(_COLUMNS)
"""What may be told of a delivery in a table."""
_DEFAULT_COLUMNS = (
    "id",
    "sink",
    "destination",
    "key",
    "type",
    "state",
    "due for",
    "attempts",
    "error",
)


def print_deliveries(deliveries: Iterable[DeliveryState], columns: Sequence[str] = _DEFAULT_COLUMNS) -> None:
    """Prints a table of deliveries."""
    print_table(columns, ([_COLUMNS[name](each) for name in columns] for each in deliveries))
