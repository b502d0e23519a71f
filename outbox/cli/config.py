"""`outbox config`."""

from __future__ import annotations

import click

from outbox.cli.output import as_json, print_json, print_table, reading


@click.command()
@as_json
def config(*, as_json: bool) -> None:
    """Print every setting in force, and where it came from: the environment, .env or its default.

    Passwords are masked.
    """
    listing = list(reading().listing())
    if as_json:
        print_json([setting._asdict() for setting in listing])
    else:
        print_table(
            ("setting", "value", "from"), ((each.variable, each.value, each.origin) for each in listing)
        )
