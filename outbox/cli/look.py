"""`outbox status` and `show`: how all of it does, and what is known of one delivery."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from getpass import getuser
from typing import Any
from uuid import UUID

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.cli.acting import heard
from outbox.cli.output import age, as_json, duration, print_facts, print_json, print_table, settings
from outbox.cli.pause import print_pauses
from outbox.cli.selecting import ask, named, names
from outbox.operate import Amiss, Details, SinkStatus, Status, Who
from outbox.settings import Settings


@click.command()
@as_json
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Tell per sink what is pending, and which relays deliver it.

    Exits 1 when something is stuck or parked: a person should look (`outbox stuck`). So it does when rows of
    the tables do not fit together, and says what is wrong (`outbox repair`).

    \b
    pending    everything not yet done, parked ones aside
    due        in line, to be sent now
    held       waits behind an earlier delivery of its key
    retrying   failed, waits for its next attempt
    scheduled  its time has not come
    stuck      of the pending ones: overdue for longer than OUTBOX_STUCK_AFTER_SECONDS
    parked     given to a person: `outbox retry` or `outbox skip`
    oldest     how long the oldest pending delivery has been due

    Numbers are exact up to 10000; 10000+ are more.
    """
    found = ask(settings(), operate.status)
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    if found.needs_attention:
        ctx.exit(1)


def _print_status(found: Status) -> None:
    columns = ("sink", "pending", "due", "held", "retrying", "scheduled", "stuck", "parked", "oldest")
    counts = ([_told(sink, name) for name in columns[:-1]] for sink in found.sinks)
    ages = (duration(sink.oldest_seconds) for sink in found.sinks)
    print_table(columns, ((*row, age) for row, age in zip(counts, ages, strict=True)))
    click.echo()
    print_table(
        ("relay", "version", "up for", "lanes"),
        (
            (
                relay.name,
                relay.version,
                age(relay.started_at),
                ", ".join(f"{number} {sink}" for sink, number in sorted(relay.lanes.items())) or None,
            )
            for relay in found.relays
        ),
    )
    if not found.relays:
        click.echo("No relay is at work. Start one (outbox relay), or see in its log what it waits for.")
    if found.pauses:
        click.echo()
        print_pauses(found.pauses)
    if found.amiss:
        click.echo()
        for line in _what_is_amiss(found.amiss):
            click.echo(line)
        click.echo("See what would be done: outbox repair --dry-run")


def _told(sink: SinkStatus, name: str) -> str:
    return f"{getattr(sink, name)}{'+' if name in sink.more else ''}"


def _what_is_amiss(amiss: Amiss) -> Iterator[str]:
    words = {
        "lost": "written, but in neither the queue nor the receipts: nobody will send them",
        "double": "in the queue though they have a receipt: they are sent again",
        "ghosts": "in the queue without their message",
        "passed": "written with an id below what was delivered before: relays find them within a minute",
        "behind": "ids that the sequence has still to give are taken: writers will fail",
    }
    for kind, number in amiss.counts.items():
        if number:
            yield f"{number} {words[kind]}."


@click.command()
@names(required=True)
@click.option("--reveal", is_flag=True, help="Print the payload too; a line on stderr says who asked.")
@as_json
@click.pass_context
def show(ctx: click.Context, *, names: Sequence[int | UUID], reveal: bool, as_json: bool) -> None:
    """Show deliveries by id, or all deliveries of a message by its message id; exits 1 if there is none."""
    chosen = settings()

    async def look(connection: AsyncConnection) -> list[Details]:
        found = await operate.show(connection, named(names), payload=reveal)
        await connection.rollback()
        if reveal and found:
            await _record_reveal(chosen, connection, [details.delivery.id for details in found])
        return found

    found = ask(chosen, look)
    if reveal and found:
        _tell_of_payloads(found)
    if as_json:
        print_json([_object(details, payload=reveal) for details in found])
    for details in found if not as_json else ():
        print_facts(_facts(details, payload=reveal))
        click.echo()
    if not found:
        click.echo("There is no such delivery. Done ones are pruned after OUTBOX_RETENTION.", err=True)
        ctx.exit(1)


async def _record_reveal(settings: Settings, connection: AsyncConnection, ids: Sequence[int]) -> None:
    """Leaves a trace in the record of acts; where that is not to be had, nothing is revealed."""
    async with connection.begin():
        act = await operate.record(connection, "reveal", Who(os_user=getuser()), selection={"ids": list(ids)})
    await heard(settings, connection, act)


def _tell_of_payloads(found: Sequence[Details]) -> None:
    """Leaves a trace of who saw what messages say, for whoever collects what commands print."""
    ids = [details.delivery.id for details in found]
    told = {"event": "payload.revealed", "timestamp": datetime.now(UTC), "ids": ids, "by": getuser()}
    click.echo(json.dumps(told, default=str), err=True)


def _object(details: Details, *, payload: bool) -> dict[str, Any]:
    delivery = {name: getattr(details.delivery, name) for name in details.delivery.__slots__}
    return {
        **delivery,
        "held_by": details.held_by,
        "owner": details.owner,
        "headers": details.headers,
        **(_payload(details.payload) if payload else {}),
    }


def _payload(payload: bytes | None) -> dict[str, str | None]:
    if payload is None:
        return {"payload": None}
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}


def _facts(details: Details, *, payload: bool) -> dict[str, Any]:
    delivery = details.delivery
    state = delivery.state
    if details.held_by is not None:
        state += f", behind {details.held_by}"
    if delivery.stuck:
        state += ", stuck"
    if delivery.uncertain:
        state += "; an earlier attempt may have arrived"
    return {
        "id": delivery.id,
        "message": delivery.message_id,
        "type": delivery.type,
        "to": f"{delivery.sink}: {delivery.destination}",
        "key": delivery.key,
        "state": state,
        "attempts": delivery.attempts or None,
        "last error": delivery.last_error,
        "written": delivery.created_at,
        "first due": delivery.first_due_at,
        "next try": delivery.due_at,
        "expires": delivery.expires_at,
        "parked": delivery.parked_at,
        "settled": delivery.settled_at,
        "partition": delivery.partition,
        "offset": delivery.partition_offset,
        "receivers": delivery.receivers,
        "replay": delivery.replay_id,
        "lane": f"{delivery.lane}, owned by {details.owner or 'no relay'}",
        **{f"header {name}": value for name, value in sorted(details.headers.items())},
        **(_payload(details.payload) if payload else {}),
    }
