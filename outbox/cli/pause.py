"""`outbox pause` and `outbox resume`: nothing goes out for now, and nothing overtakes when it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from getpass import getuser
from typing import Any, TypeVar

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.cli.acting import heard
from outbox.cli.output import as_json, print_json, print_lines, settings
from outbox.cli.selecting import ask, time_span
from outbox.operate import Pause, Place, Who

F = TypeVar("F", bound=Callable[..., Any])


def _place(command: F) -> F:
    for option in (
        click.option("--key", help="Only this key of the destination."),
        click.option("--destination", help="Only this topic or channel."),
        click.argument("sink"),
    ):
        command = option(command)
    return command


def _checked(sink: str, destination: str | None, key: str | None) -> Place:
    if key is not None and destination is None:
        raise click.UsageError("A key is one of a destination: add --destination.")
    return Place(sink, destination, key)


@click.command()
@_place
@click.option("--for", "lasts", type=time_span, metavar="TIME", help="It goes on by itself then: 30m, 2h.")
@click.option("--reason", help="Why, for those who find it paused.")
@as_json
def pause(
    *,
    sink: str,
    destination: str | None,
    key: str | None,
    lasts: timedelta | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """Send nothing to SINK, to one of its destinations, or of one key, until it is resumed.

    Relays obey with their next fetch, within a second. What is on its way at that moment arrives. Services go
    on writing, and what they write waits; what expires meanwhile is not sent any more. `outbox status` shows
    what is paused.
    """
    place = _checked(sink, destination, key)
    chosen = settings()

    async def act(connection: AsyncConnection) -> None:
        by = getuser()
        done = await operate.pause(connection, place, paused_by=by, lasts=lasts, reason=reason)
        await heard(chosen, connection, done)

    ask(chosen, act)
    found = [each for each in ask(settings(), operate.pauses) if each.place == place]
    if as_json:
        print_json(found)
        return
    print_pauses(found)


@click.command()
@_place
@click.option("--reason", help="Why, for the record.")
@as_json
@click.pass_context
def resume(
    ctx: click.Context,
    *,
    sink: str,
    destination: str | None,
    key: str | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """Go on with what was paused: exactly this sink, destination or key. Exits 1 if it is not paused.

    What waited goes out first, in its order.
    """
    place = _checked(sink, destination, key)
    chosen = settings()

    async def act(connection: AsyncConnection) -> bool:
        done = await operate.resume(connection, place, Who(os_user=getuser(), reason=reason))
        if done is not None:
            await heard(chosen, connection, done)
        return done is not None

    ended = ask(chosen, act)
    left = ask(chosen, operate.pauses)
    if as_json:
        print_json({"resumed": int(ended), "paused": left})
    else:
        click.echo(f"{place} goes on." if ended else f"{place} is not paused.")
        if left:
            click.echo("Still paused:\n")
            print_pauses(left)
    if not ended:
        ctx.exit(1)


def print_pauses(pauses: Sequence[Pause]) -> None:
    """Prints what is paused, and how it is resumed."""
    for each in pauses:
        print_lines(each.sentence)
        print_lines(f"→ {each.place.resume_command}", indent="  ")
