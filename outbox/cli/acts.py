"""`outbox acts` and `outbox cancel`: what operators did and what of it is under way."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from getpass import getuser
from typing import Any

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.cli.acting import follow, progress, told, warn_of_the_rest
from outbox.cli.output import as_json, print_facts, print_json, print_table, settings, warn
from outbox.cli.selecting import ask
from outbox.operate import Operation, Recorded, Who
from outbox.operate.groups import group_name

_SHOWN = 5


@click.command()
@click.argument("operation", required=False, type=click.IntRange(1))
@click.option("--here", is_flag=True, help="Carry this operation out here.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many.")
@click.option("--before", type=click.IntRange(1), metavar="ACT", help="Go on from there.")
@as_json
def acts(*, operation: int | None, here: bool, limit: int, before: int | None, as_json: bool) -> None:
    """Tell what operators did, who and why, the newest first; or how far one operation is.

    Nobody changes that record, not even who writes it. Operations that are under way come first; one can be
    ended by `outbox cancel`.
    """
    if operation is not None:
        _show(operation, here=here, as_json=as_json)
        return

    async def look(connection: AsyncConnection) -> tuple[Sequence[Operation], Sequence[Recorded]]:
        return await operate.under_way(connection), await operate.acts(connection, limit, before=before)

    open_, found = ask(settings(), look)
    if as_json:
        print_json({"under_way": open_, "acts": found})
        return
    for each in open_:
        trouble = f"; the last batch failed: {each.trouble}" if each.trouble else ""
        click.echo(f"Under way: {each.act} {each.id}, {progress(each)}{trouble} → outbox cancel {each.id}")
    if not found:
        click.echo("Nobody did anything yet.")
        return
    print_table(("act", "when", "what", "operation", "who", "why", "of it"), map(_row, found))
    if len(found) == limit:
        click.echo(f"There may be more: outbox acts --before={found[-1].id}")


def _row(each: Recorded) -> Sequence[Any]:
    what = (
        each.act if each.phase in ("asked", "done") and each.operation is None else f"{each.act} {each.phase}"
    )
    return each.id, each.at, what, each.operation, _who(each), each.reason, _of_it(each)


def _who(each: Recorded) -> str:
    return " ".join((each.role, *(f"({name})" for name in (each.os_user, each.login) if name)))


def _of_it(each: Recorded) -> str | None:
    after = {name: value for name, value in (each.after or {}).items() if value or name == "rows"}
    told = _facts({**(each.selection or {}), **after})
    rows = each.before.get("rows") if each.before else None
    return f"{told or 'all'} ({rows})" if rows else told or None


def _facts(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_word(name, value)}" for name, value in values.items() if value is not None)


def _word(name: str, value: Any) -> str:
    match value:
        case list():
            return ",".join(map(str, value[:_SHOWN])) + (",…" if len(value) > _SHOWN else "")
        case float():
            return f"{value:g}"
        case int() if name == "group":
            return group_name(value)
        case _:
            return shlex.quote(str(value))


def _show(number: int, *, here: bool, as_json: bool) -> None:
    chosen = settings()
    found = ask(chosen, lambda connection: operate.operation(connection, number))
    if here and not found.ended_at:
        found = follow(chosen, number, here=True, quiet=as_json)
    if as_json:
        print_json(found)
        return
    facts: dict[str, Any] = {"id": found.id, "act": found.act, "asked": found.asked_at, "by": found.asked_by}
    facts |= {"upon": _facts(found.selection) or "all", "how": _facts(found.options) or None}
    facts |= {"state": _state(found), "done": progress(found), "trouble": found.trouble}
    print_facts(facts)
    warn_of_the_rest(operate.done(found), found.act)


def _state(found: Operation) -> str:
    if found.cancelled:
        return "cancelled"
    return "done" if found.ended_at else "under way"


@click.command()
@click.argument("operation", type=click.IntRange(1))
@click.option("--reason", help="Why, for the record.")
@as_json
@click.pass_context
def cancel(ctx: click.Context, *, operation: int, reason: str | None, as_json: bool) -> None:
    """End an operation where it is; what is done stays done. Exits 1 if it has ended already."""
    chosen = settings()
    hook = operate.load_hook(chosen.act_hook)

    async def end(connection: AsyncConnection) -> tuple[bool, Operation]:
        was_open = await operate.cancel(connection, operation, Who(os_user=getuser(), reason=reason))
        found = await operate.operation(connection, operation)
        if was_open:
            recorded, *_ = await operate.acts(connection, 1, operation=operation)
            await told(hook, recorded)
        return was_open, found

    was_open, found = ask(chosen, end)
    if as_json:
        print_json(found)
    elif was_open:
        click.echo(f"{found.act} {found.id} is cancelled: {progress(found)}.")
    else:
        warn(f"{found.act} {found.id} had ended already: {progress(found)}")
    if not was_open:
        ctx.exit(1)
