"""How commands say which deliveries they mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import reduce
from typing import Any, TypeVar
from uuid import UUID

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.cli.output import age, print_table
from outbox.operate import DeliveryState, Selection, connect
from outbox.settings import Settings

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


_FILTERS = (
    click.option("--sink", help="Only this sink."),
    click.option("--destination", help="Only this topic or channel."),
    click.option("--key", help="Only this key."),
    click.option("--type", help="Only this type of message."),
    click.option("--error", help="Only where the last error contains this."),
)


def filters(command: F) -> F:
    """Adds the options that narrow a selection."""
    return reduce(lambda decorated, option: option(decorated), reversed(_FILTERS), command)


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


def print_deliveries(deliveries: Iterable[DeliveryState]) -> None:
    """Prints a table of deliveries."""
    print_table(
        ("id", "sink", "destination", "key", "type", "state", "due for", "attempts", "uncertain", "error"),
        (
            (
                each.id,
                each.sink,
                each.destination,
                each.key,
                each.type,
                each.state,
                age(each.first_due_at),
                each.attempts,
                each.uncertain,
                each.last_error,
            )
            for each in deliveries
        ),
    )
