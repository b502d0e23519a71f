"""`outbox trace`: the way of a message."""

from __future__ import annotations

from uuid import UUID

import click

from outbox import operate
from outbox.cli.output import as_json, print_facts, print_json, print_table, settings
from outbox.cli.selecting import ask


@click.command()
@click.argument("message_id", type=click.UUID)
@as_json
@click.pass_context
def trace(ctx: click.Context, *, message_id: UUID, as_json: bool) -> None:
    """Tell the way of a message in the order of time: when it was written, and what became of each delivery.

    When it was committed is known where the database has track_commit_timestamp. Exits 1 if there is no such
    message.
    """
    found = ask(settings(), lambda connection: operate.trace(connection, message_id))
    if found is None:
        click.echo("There is no such message. Done ones are pruned after OUTBOX_RETENTION.", err=True)
        ctx.exit(1)
    moments = operate.timeline(found)
    if as_json:
        print_json({"trace": found, "timeline": moments})
        return
    print_facts({"message": found.message_id, "type": found.type, "correlation": found.correlation_id})
    click.echo()
    print_table(
        ("when", "what", "id", "to", "detail"),
        ((moment.at or "now", moment.what, moment.id, moment.to, moment.detail) for moment in moments),
    )
