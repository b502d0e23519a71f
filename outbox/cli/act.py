"""`outbox retry`, `skip` and `park`: what a person decides about deliveries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeVar
from uuid import UUID

import click

from outbox import operate
from outbox.cli.acting import do
from outbox.cli.output import as_json, settings, warn
from outbox.cli.selecting import ask, filters, named, names
from outbox.operate import PENDING, Selection, Wish
from outbox.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--all", "everything", is_flag=True, help="Without any narrowing."),
    click.option("--reason", help="Why, for the record."),
    click.option("--here", is_flag=True, help="Carry it out in this process, with relays or without."),
    click.option("--yes", is_flag=True, help="Do not ask."),
    click.option("--dry-run", is_flag=True, help="List them, and change nothing."),
    as_json,
)


def acting(command: F) -> F:
    """Adds the arguments and options that every act upon deliveries has."""
    return names()(filters(reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)))


def _states(states: Sequence[str], without: str) -> Callable[[F], F]:
    return click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice(states),
        help=f"In this state; can be given again. Without names: {without}.",
    )


@click.command()
@acting
@click.option("--with-earlier", is_flag=True, help="With what is parked before them in their keys.")
def retry(*, with_earlier: bool, **given: Any) -> None:
    """Try parked deliveries, or waiting ones, again: now, and with all their attempts.

    Name them, or narrow them down: `outbox retry --sink kafka --error "too large"`. They go out in the order
    of their keys. A key of which an earlier one is parked and not among them is left out; --with-earlier
    takes it along.
    """
    _act("retry", given, states=(), with_earlier=with_earlier)


@click.command()
@acting
@_states(PENDING, "parked")
def skip(*, states: Sequence[str], **given: Any) -> None:
    """Give deliveries up: they are never sent, and their keys go on.

    Name them, or narrow down the parked ones: `outbox skip --destination orders --key 42`. What is not
    parked may be on its way at that moment, and arrive all the same.
    """
    _act("skip", given, states=states or (() if given["names"] else ("parked",)))


@click.command()
@acting
@_states(tuple(state for state in PENDING if state != "parked"), "all of them")
def park(*, states: Sequence[str], **given: Any) -> None:
    """Stop trying deliveries, until somebody retries or skips them.

    Their keys go on without them, or wait, as OUTBOX_ON_PARK says. What is on its way at that moment may
    arrive.
    """
    reason = given["reason"]
    _act("park", given, states=states, error=f"parked by hand{f': {reason}' if reason else ''}")


def _act(act: operate.Act, given: dict[str, Any], *, states: Sequence[str], **how: Any) -> None:
    manner = {name: given.pop(name) for name in ("reason", "here", "yes", "dry_run", "as_json")}
    selection = _selection(given.pop("names"), everything=given.pop("everything"), states=states, **given)
    chosen = settings()
    done = do(chosen, Wish(act=act, selection=selection, **how), **manner)
    if done and selection.named and not done.rows:
        if not done.left_out:
            _explain_nothing(chosen, selection)
        click.get_current_context().exit(1)


def _selection(names: Sequence[int | UUID], *, everything: bool, **conditions: Any) -> Selection:
    narrowed = names or any(value is not None for name, value in conditions.items() if name != "states")
    if bool(narrowed) == everything:
        raise click.UsageError("Name deliveries or narrow them down (see --help), or say --all.")
    return named(names, **conditions)


def _explain_nothing(settings: Settings, selection: Selection) -> None:
    named_only = Selection(ids=selection.ids, message_ids=selection.message_ids)
    found = ask(settings, lambda connection: operate.show(connection, named_only))
    for details in found:
        warn(f"{details.delivery.id} is {details.delivery.state}")
    if not found:
        warn("There is no such delivery")
