"""`outbox list`, `groups` and `stuck`: which deliveries there are, page by page, and what failed by cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import click

from outbox import operate
from outbox.cli.output import age, as_json, print_json, print_table, settings, warn
from outbox.cli.selecting import (
    COLUMNS,
    ask,
    filters,
    filters_of_causes,
    named,
    names,
    print_deliveries,
    words,
)
from outbox.operate import DONE, PENDING, Count, Group, Page, Selection

_LIMIT = click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many."
)
_AFTER = click.option("--after", metavar="PLACE", help="Go on from there: an earlier page said from where.")


def _columns(value: str) -> Sequence[str]:
    chosen = [each.strip() for each in value.split(",") if each.strip()]
    for each in chosen:
        if each not in COLUMNS:
            raise click.BadParameter(f"{each!r} is none of {', '.join(COLUMNS)}.")
    return chosen


@click.command("list")
@names()
@filters
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice((*PENDING, *DONE)),
    help="In this state; can be given again. Without: all that is pending.",
)
@click.option(
    "--stuck", is_flag=True, help="Only what is overdue for longer than OUTBOX_STUCK_AFTER_SECONDS."
)
@_LIMIT
@_AFTER
@click.option("--columns", type=_columns, metavar="NAME,…", help=f"Of {', '.join(COLUMNS)}.")
@as_json
def list_(
    *,
    names: Sequence[int | UUID],
    limit: int,
    after: str | None,
    columns: Sequence[str] | None,
    as_json: bool,
    **conditions: Any,
) -> None:
    """List deliveries that match every option given.

    Pending ones are listed by their ids, parked ones by when they were parked, retrying and scheduled ones
    by when they are due; delivered, expired and skipped ones from the newest on. One page looks at 50,000
    rows at the most: where few of many match, it says from where to go on.
    """
    selection = named(names, **conditions)
    found = ask(settings(), lambda connection: operate.page(connection, selection, limit, after))
    if as_json:
        print_json({"deliveries": found.deliveries, "after": found.after})
        return
    if found.deliveries:
        print_deliveries(found.deliveries, *([columns] if columns else ()))
    elif found.after is None:
        click.echo("There is no such delivery.")
    _print_rest("list", selection, found)


def _print_rest(command: str, selection: Selection, found: Page, *more: str) -> None:
    if found.after is not None:
        what = "There are more" if found.deliveries else "Nothing so far, but there is more to look at"
        options = [*more, *words(selection), *(["--stuck"] if selection.stuck and command == "list" else ())]
        click.echo(f"{what}: {' '.join(['outbox', command, *options, f'--after={found.after}'])}")


@click.command()
@filters
@click.option("--parked", is_flag=True, help="List the parked ones instead.")
@_LIMIT
@_AFTER
@as_json
def stuck(*, parked: bool, limit: int, after: str | None, as_json: bool, **conditions: Any) -> None:
    """List what is overdue for longer than OUTBOX_STUCK_AFTER_SECONDS, or parked; oldest first."""
    selection = Selection(stuck=not parked, states=("parked",) if parked else (), **conditions)

    async def look(connection: Any) -> tuple[Count, Page]:
        return await operate.tally(connection, selection), await operate.page(
            connection, selection, limit, after
        )

    number, found = ask(settings(), look)
    if as_json:
        print_json(
            {"rows": number.rows, "more": number.more, "deliveries": found.deliveries, "after": found.after}
        )
        return
    what = "parked" if parked else "stuck"
    if not found.deliveries and found.after is None:
        click.echo(f"Nothing is {what}.")
        return
    if found.deliveries:
        print_deliveries(found.deliveries)
        click.echo(f"{number} {what} in all.") if number.rows > len(found.deliveries) else None
    _print_rest("stuck", selection, found, *(["--parked"] if parked else ()))


@click.command()
@filters_of_causes
@as_json
def groups(*, as_json: bool, **conditions: Any) -> None:
    """Tell what was parked, by cause: how many, since when, and what to type.

    A group is one error, but for what has a digit in it (ids, sizes, offsets), of one type of message, to one
    destination. `outbox list`, `retry` and `skip` take a group by --group.
    """
    found = ask(settings(), lambda connection: operate.groups(connection, Selection(**conditions)))
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("Nothing is parked.")
        return
    print_table(
        ("group", "rows", "to", "type", "since", "last", "error"),
        (_row(group) for group in found),
    )
    click.echo(f"\nTry one again: outbox retry --group {found[0].group}")
    if any(group.type is None for group in found):
        warn("Those without a type were parked before causes were told apart, or their message is gone")


def _row(group: Group) -> Sequence[Any]:
    return (
        group.group,
        group.rows,
        f"{group.sink}: {group.destination}" if group.destination else group.sink,
        group.type,
        age(group.first),
        age(group.last),
        f"{group.error} (delivery {group.example})",
    )
