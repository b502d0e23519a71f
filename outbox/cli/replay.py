"""`outbox replay`: what was delivered goes out again."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from outbox.cli.acting import do
from outbox.cli.output import as_json, settings
from outbox.cli.selecting import time_span
from outbox.operate import Selection, Wish


def _time(value: str) -> str:
    """Returns a time as RFC 3339: one that is given so, or an age."""
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return (datetime.now(UTC) - time_span(value)).isoformat()
    if time.tzinfo is None:
        raise click.BadParameter(f"{value!r} has no time zone: add Z, or an offset.")
    return time.isoformat()


@click.command()
@click.option("--sink", required=True, help="Of this sink.")
@click.option("--since", type=_time, metavar="TIME", help="Delivered since: 2026-01-31T12:00:00Z, or 2h ago.")
@click.option("--until", type=_time, metavar="TIME", help="Delivered before.")
@click.option("--destination", help="Only of this topic or channel.")
@click.option("--key", help="Only this key.")
@click.option("--type", help="Only this type of message.")
@click.option("--to", metavar="DESTINATION", help="Send them there instead.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many a second.")
@click.option("--all", "everything", is_flag=True, help="Without any narrowing.")
@click.option("--reason", help="Why, for the record.")
@click.option("--here", is_flag=True, help="Carry it out in this process, with relays or without.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Count them, and change nothing.")
@as_json
def replay(
    *,
    sink: str,
    since: str | None,
    until: str | None,
    destination: str | None,
    key: str | None,
    type: str | None,  # noqa: A002 - as the option is called
    to: str | None,
    rate: float | None,
    everything: bool,
    reason: str | None,
    here: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send messages again that were delivered, each once, in their order.

    They are written anew, with their message ids: consumers that de-duplicate drop them, unless they forgot
    them. Their headers say `replayed_at` and `replay_id`. Neither their `available_at` nor their `expires_at`
    counts again. What was pruned is not there any more (OUTBOX_RETENTION).
    """
    narrowed = any(each is not None for each in (since, until, destination, key, type))
    if narrowed == everything:
        raise click.UsageError("Narrow them down (see --help), or say --all.")
    selection = Selection(sink=sink, destination=destination, key=key, type=type)
    wish = Wish(act="replay", selection=selection, since=since, until=until, to=to, rate=rate)
    do(settings(), wish, reason=reason, here=here, yes=yes, dry_run=dry_run, as_json=as_json)
