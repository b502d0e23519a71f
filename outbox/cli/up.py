"""`outbox up`: the whole on this machine, to watch and to break."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import click

from outbox.cli.output import reading
from outbox.distribution import install
from outbox.errors import OperatorError


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), help="End by itself after writing for so long.")
@click.option(
    "--rate",
    type=click.FloatRange(min=1, max=10_000),
    default=50,
    show_default=True,
    help="Messages a second.",
)
@click.option(
    "--break",
    "breaks",
    multiple=True,
    type=click.Choice(["kafka", "redis", "postgres", "relay"]),
    help="Take this away for some seconds, a little after the start; several go one after the other.",
)
@click.option(
    "--break-seconds", type=click.FloatRange(min=0.1), default=5, show_default=True, help="For how long."
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the servers' data in this folder, and go on with what is there.",
)
def up(
    *, seconds: float | None, rate: float, breaks: tuple[str, ...], break_seconds: float, keep: Path | None
) -> None:
    """Start PostgreSQL, Kafka, Valkey, two relays and HuleEdu here, and watch messages go through.

    HuleEdu has a page on which essays are uploaded and find their slots. Beside it a stream of slot
    assignments is written, each in the transaction of its business row, and consumers of its own check that
    all of it arrives, in order. Exits 1 if anything does not. In a terminal, keys take a server or a relay
    away for some seconds. Ctrl-C stops everything and leaves nothing behind.

    A server that OUTBOX_DATABASE_URL, OUTBOX_KAFKA_BOOTSTRAP_SERVERS or OUTBOX_REDIS_URL names is used
    instead of a local one; the database is migrated, and given HuleEdu's tables and outbox_demo_assignments.
    """
    # Clients say at length what the screen tells in a word.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        from rich.console import Console

        from outbox.demo.story import Story
        from outbox.demo.up import Options
        from outbox.demo.up import up as run
    except ModuleNotFoundError as error:
        raise OperatorError(f"outbox up needs {error.name}: {install('demo')}") from error
    found = reading()
    options = Options(seconds=seconds, rate=rate, keep=keep, breaks=breaks, break_seconds=break_seconds)
    try:
        well = asyncio.run(run(options, found, Story(Console())))
    except asyncio.CancelledError:
        click.echo("Stopped.", err=True)
        raise SystemExit(130) from None
    if not well:
        raise SystemExit(1)
