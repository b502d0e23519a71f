"""`outbox retry` and `outbox skip`: what a person decides about deliveries."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.cli.output import as_json, print_json, settings, warn
from outbox.cli.selecting import ask, filters, named, names, print_deliveries
from outbox.operate import PENDING, DeliveryState, Done, Selection
from outbox.settings import Settings

_SAMPLE = 20

_everything = click.option("--all", "everything", is_flag=True, help="Without any narrowing.")
_dry_run = click.option("--dry-run", is_flag=True, help="List them, and change nothing.")


@click.command()
@names()
@filters
@_everything
@_dry_run
@as_json
def retry(
    *, names: Sequence[int | UUID], everything: bool, dry_run: bool, as_json: bool, **conditions: Any
) -> None:
    """Try parked deliveries, or waiting ones, again: now, and with all their attempts.

    Name them, or narrow them down: `outbox retry --sink kafka --error "too large"`. Their keys wait
    for them meanwhile.
    """
    selection = _selection(names, everything=everything, states=("parked", "retrying"), **conditions)
    if dry_run:
        _rehearse(settings(), selection, as_json=as_json)
    else:
        _act(settings(), selection, operate.retry, "due now", as_json=as_json)


@click.command()
@names()
@filters
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(PENDING),
    help="In this state; can be given again. Without names: parked.",
)
@_everything
@click.option("--yes", is_flag=True, help="Do not ask.")
@_dry_run
@as_json
def skip(
    *,
    names: Sequence[int | UUID],
    states: Sequence[str],
    everything: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **conditions: Any,
) -> None:
    """Give deliveries up: they are never sent, and their keys go on.

    Name them, or narrow down the parked ones: `outbox skip --destination orders --key 42`. What is not
    parked may be on its way at that moment, and arrive all the same.
    """
    states = states or (() if names else ("parked",))
    selection = _selection(names, everything=everything, states=states, **conditions)
    chosen = settings()
    if dry_run:
        _rehearse(chosen, selection, as_json=as_json)
        return
    if not (yes or names):
        _confirm(chosen, selection)
    _act(chosen, selection, operate.skip, "skipped", as_json=as_json)


def _selection(names: Sequence[int | UUID], *, everything: bool, **conditions: Any) -> Selection:
    narrowed = names or any(value is not None for name, value in conditions.items() if name != "states")
    if bool(narrowed) == everything:
        raise click.UsageError("Name deliveries or narrow them down (see --help), or say --all.")
    return named(names, **conditions)


def _rehearse(settings: Settings, selection: Selection, *, as_json: bool) -> None:
    async def look(connection: AsyncConnection) -> tuple[int, list[DeliveryState]]:
        sample = await operate.page(connection, selection, _SAMPLE)
        return await operate.count(connection, selection), list(sample.deliveries)

    number, found = ask(settings, look)
    if as_json:
        print_json({"dry_run": True, "rows": number, "deliveries": found})
        return
    print_deliveries(found)
    if number > len(found):
        click.echo(f"… and {number - len(found)} more")
    click.echo(f"{number} would be changed; nothing was.")


def _confirm(settings: Settings, selection: Selection) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("Add --yes: what is skipped is never sent.")
    number = ask(settings, lambda connection: operate.count(connection, selection))
    click.confirm(f"Skip {number} deliveries? They will never be sent", abort=True)


def _act(
    settings: Settings,
    selection: Selection,
    action: Callable[[AsyncConnection, Selection], Awaitable[Done]],
    what: str,
    *,
    as_json: bool,
) -> None:
    done = ask(settings, lambda connection: action(connection, selection))
    if as_json:
        print_json(done)
    else:
        click.echo(f"{done.rows} {'delivery is' if done.rows == 1 else 'deliveries are'} {what}.")
    if done.busy:
        warn(f"{done.busy} left alone: a relay was settling them at that moment")
    if done.uncertain:
        warn(f"{done.uncertain} of them may have arrived all the same: an earlier attempt was uncertain")
    if selection.named and not done.rows:
        _explain_nothing(settings, selection)
        click.get_current_context().exit(1)


def _explain_nothing(settings: Settings, selection: Selection) -> None:
    named_only = Selection(ids=selection.ids, message_ids=selection.message_ids)
    found = ask(settings, lambda connection: operate.show(connection, named_only))
    for details in found:
        warn(f"{details.delivery.id} is {details.delivery.state}")
    if not found:
        warn("There is no such delivery")
