"""`outbox migrate` and `outbox grants`: what the tables' owner does."""

from __future__ import annotations

import sys

import click

from outbox import migrate as migrations
from outbox.cli.output import as_json, print_json, settings
from outbox.schema import REVISIONS
from outbox.schema import grants as rights


@click.command()
@click.option("--sql", is_flag=True, help="Print the statements instead, without a database.")
@click.option("--from", "since", metavar="REVISION", help="With --sql: what the database is at already.")
@as_json
def migrate(*, sql: bool, since: str | None, as_json: bool) -> None:
    """Bring the database to this version's schema; does nothing where it is there already.

    The tables are the outbox's own, and so is the table of versions: a service's migrations in the
    same database are not touched. Services and relays may be at work. What was interrupted goes on
    with the next run.
    """
    chosen = settings()
    if sql:
        migrations.sql(chosen, sys.stdout, f"{since}:head" if since else "head")
        return
    if since:
        raise click.UsageError("--from goes with --sql: without it, the database says what it is at.")
    migrations.upgrade(chosen)
    if as_json:
        print_json({"revision": REVISIONS[-1]})
    else:
        click.echo(f"The database is at {REVISIONS[-1]}.")


@click.command()
@click.argument("part", type=click.Choice(rights.PARTS))
@click.argument("role")
@as_json
def grants(*, part: rights.Part, role: str, as_json: bool) -> None:
    """Print the statements that let ROLE be this PART and no more; the tables' owner runs them.

    \b
    writer    writes messages
    relay     delivers them
    operator  looks and acts
    reader    looks
    consumer  keeps the inbox
    """
    statements = rights.grants(part, role, settings().database_schema)
    if as_json:
        print_json(statements)
    else:
        click.echo("\n".join(f"{statement};" for statement in statements))
