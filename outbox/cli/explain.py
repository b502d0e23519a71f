"""`outbox explain`: why something is not out yet, and what to type."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.cli.output import as_json, print_json, print_lines, settings
from outbox.cli.selecting import ask
from outbox.operate import PENDING, Explanation, Selection


@click.command()
@click.argument("name", required=False, metavar="[ID|MESSAGE_ID|SINK|DESTINATION]")
@click.option("--key", help="The first that waits of this key; of a destination, if one is named.")
@as_json
@click.pass_context
def explain(ctx: click.Context, *, name: str | None, key: str | None, as_json: bool) -> None:
    """Say why something is not out yet: the cause, the evidence, and what mends it.

    A number is the id of a delivery, a UUID a message; anything else is a sink, or a destination. Of a sink,
    a destination or a key it is the first delivery that waits. Where there are several causes, the one that
    holds it longest comes first. Exits 1 if there is no such thing.
    """
    if name is None and key is None:
        raise click.UsageError("Name a delivery, a message, a sink or a destination, or a key by --key.")
    found = ask(settings(), lambda connection: _explanations(connection, name, key))
    if as_json:
        print_json(found)
    else:
        for explanation in found:
            _print(explanation)
    if not found:
        click.echo("Nothing of that name waits, or is known.", err=True)
        ctx.exit(1)


async def _explanations(
    connection: AsyncConnection, name: str | None, key: str | None
) -> Sequence[Explanation]:
    if name is not None and key is None:
        if name.isdecimal():
            return [await operate.explain_id(connection, int(name))]
        if message := _uuid(name):
            found = await operate.page(connection, Selection(message_ids=[message]), 100)
            return [await operate.explain(connection, delivery) for delivery in found.deliveries]
    known = await operate.explain_place(connection, await _selection(connection, name, key))
    return [known] if known else []


async def _selection(connection: AsyncConnection, name: str | None, key: str | None) -> Selection:
    if name in await operate.sinks(connection):
        return Selection(sink=name, key=key)
    return Selection(destination=name, key=key)


def _uuid(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None


def _print(explanation: Explanation) -> None:
    click.secho(f"{explanation.about}.", bold=True)
    if not explanation.causes and explanation.delivery and explanation.delivery.state in PENDING:
        print_lines("Nothing keeps it back.", indent="  ")
    for cause in explanation.causes:
        print_lines(cause.sentence, indent="  ")
        for each in cause.evidence:
            print_lines(each, indent="    ")
        print_lines(f"→ {cause.remedy}", indent="  ")
    click.echo()
