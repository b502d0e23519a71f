"""`outbox repair`: what does not fit together in the tables, and its mending."""

from __future__ import annotations

import sys
from dataclasses import asdict
from getpass import getuser

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.cli.acting import heard
from outbox.cli.output import as_json, print_json, settings, warn
from outbox.cli.selecting import ask
from outbox.operate import Damage, Lost, Who
from outbox.settings import Settings


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what is amiss and what would be done, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--lost",
    type=click.Choice(["queue", "skip"]),
    default="queue",
    show_default=True,
    help="What becomes of messages that are in neither the queue nor the receipts: they go out after all, or "
    "get a receipt that says skipped.",
)
@click.option("--reason", help="Why, for the record.")
@as_json
def repair(*, dry_run: bool, yes: bool, lost: Lost, reason: str | None, as_json: bool) -> None:
    """Mend rows of the tables that do not fit together: after a restore, a replication, or somebody's hand.

    It looks through all of the tables, says what it found, and asks. Relays may be at work meanwhile; a
    restore may not.

    \b
    in neither queue nor receipts     queued by id, so that they go out; or --lost=skip
    in both, done after it was written    leaves the queue
    in both, with an older receipt    loses the receipt, and goes out
    in the queue without its message  is deleted
    an id below what was delivered    relays look at it at once
    a sequence behind the ids         is set on
    """
    chosen = settings()
    found = ask(chosen, operate.survey)
    if not as_json:
        for line in found.sentences(lost):
            click.echo(line)
    if dry_run or not found:
        _say(found, Damage(), as_json=as_json)
        return
    if not yes:
        _confirm()

    async def act(connection: AsyncConnection) -> Damage:
        mended = await operate.repair(connection, lost)
        who, before = Who(os_user=getuser(), reason=reason), asdict(found)
        async with connection.begin():
            done = await operate.record(connection, "repair", who, before=before, after=asdict(mended))
        await heard(chosen, connection, done)
        return mended

    mended = ask(chosen, act)
    _say(found, mended, as_json=as_json)
    _warn_of_the_rest(chosen)


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("Add --yes, or --dry-run to change nothing.")
    click.confirm("Do that?", abort=True)


def _say(found: Damage, mended: Damage, *, as_json: bool) -> None:
    if as_json:
        print_json({"found": found, "mended": mended})
    elif not found:
        click.echo("Everything fits together.")
    else:
        click.echo("It is done." if mended else "Nothing was changed.")


def _warn_of_the_rest(settings: Settings) -> None:
    if ask(settings, operate.look):
        warn("Not everything fits together yet: a relay was settling it, or somebody is at it. Run it again")
