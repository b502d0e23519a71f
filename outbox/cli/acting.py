"""How commands act upon deliveries: they show which, ask, have it done, and say what came of it."""

from __future__ import annotations

import asyncio
import sys
from getpass import getuser

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.cli.output import is_terminal, print_json, warn
from outbox.cli.selecting import print_deliveries
from outbox.operate import Done, Operation, Preview, Who, Wish, Work, connect
from outbox.settings import Settings

_HERE_ROWS = 1_000
"""So few are done here at once, whether or not relays are at work."""
_LOOK_SECONDS = 0.2
_PATIENCE_LOOKS = 50
"""So many looks without a batch, and it is said what may be wrong."""

_DONE = {"retry": "due now", "skip": "skipped", "park": "parked", "replay": "sent again"}
_ORDER = {
    "retry": "They go out in the order of their keys, before what of these is newer.",
    "skip": "They are never sent. What waits for them goes on.",
    "park": "They wait for retry or skip; their keys go on, or wait as well under OUTBOX_ON_PARK=hold.",
    "replay": "They go out again in their order, behind what waits now, and say so in their headers.",
}


def do(
    settings: Settings, wish: Wish, *, reason: str | None, here: bool, yes: bool, dry_run: bool, as_json: bool
) -> Done | None:
    """Has it done, and says what came of it; None: nothing was to be."""
    hook = operate.load_hook(settings.act_hook)
    seen = asyncio.run(_preview(settings, wish))
    if dry_run:
        _rehearse(seen, as_json=as_json)
        return None
    if not yes:
        _confirm(seen)
    done = Done()
    if seen.rows.rows or seen.rows.more:
        who = Who(os_user=getuser(), reason=reason)
        asked = asyncio.run(_ask(settings, seen, who, hook))
        here = here or (not seen.rows.more and seen.rows.rows <= _HERE_ROWS)
        done = operate.done(follow(settings, asked, here=here, quiet=as_json))
    _say(done, wish, as_json=as_json)
    return done


async def _preview(settings: Settings, wish: Wish) -> Preview:
    async with connect(settings) as connection:
        return await operate.preview(connection, wish)


async def _ask(settings: Settings, seen: Preview, who: Who, hook: operate.Hook | None) -> int:
    async with connect(settings) as connection:
        asked = await operate.ask(connection, seen, who)
        recorded, *_ = await operate.acts(connection, 1, operation=asked)
    await told(hook, recorded)
    return asked


async def heard(settings: Settings, connection: AsyncConnection, act: int) -> None:
    """Tells the hook of an act that was done at once."""
    await told(operate.load_hook(settings.act_hook), await operate.recorded(connection, act))


async def told(hook: operate.Hook | None, recorded: operate.Recorded) -> None:
    """Tells the hook of an act; a failure is a warning."""
    if failure := await operate.tell(hook, recorded):
        warn(f"OUTBOX_ACT_HOOK: {failure}")


def _rehearse(seen: Preview, *, as_json: bool) -> None:
    if as_json:
        told = {"rows": seen.rows.rows, "more": seen.rows.more, "left_out": seen.left_out}
        print_json({"dry_run": True, **told, "deliveries": seen.sample})
        return
    if seen.sample:
        print_deliveries(seen.sample)
        if seen.rows.rows > len(seen.sample):
            click.echo(f"… and {_rest(seen)} more")
    for line in _about(seen):
        click.echo(line)
    click.echo(f"{seen.rows} would be changed; nothing was.")


def _rest(seen: Preview) -> str:
    return str(operate.Count(seen.rows.rows - len(seen.sample), seen.rows.more))


def _about(seen: Preview) -> list[str]:
    lines = []
    if seen.left_out:
        lines.append(
            f"{seen.left_out} of them would be left out: an earlier one of their key is parked and not among "
            "them. Take those along: --with-earlier"
        )
    return lines


def _confirm(seen: Preview) -> None:
    """Asks, before it is more than one, or what cannot be taken back was not named."""
    wish = seen.wish
    is_final = wish.act in ("skip", "replay") and not wish.selection.named
    if seen.rows.rows <= 1 and not is_final:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"Add --yes: it is about {seen.rows} deliveries.")
    states = ", ".join(f"{number} {state}" for state, number in seen.by_state.items())
    click.echo(f"{seen.rows} deliveries{f': {states}' if states and not seen.rows.more else ''}.")
    if seen.sample:
        print_deliveries(seen.sample[:5])
    for line in (*_about(seen), _ORDER[wish.act]):
        click.echo(line)
    click.confirm(f"{wish.act.capitalize()} them?", abort=True)


def follow(settings: Settings, number: int, *, here: bool, quiet: bool) -> Operation:
    """Returns what came of an operation, once it has ended; tells how far it is meanwhile."""
    try:
        return asyncio.run(_follow(settings, number, here=here, quiet=quiet))
    except KeyboardInterrupt:
        click.echo(f"\nRelays go on with it. How far they are: outbox acts {number}", err=True)
        click.echo(f"End it: outbox cancel {number}", err=True)
        raise


async def _follow(settings: Settings, number: int, *, here: bool, quiet: bool) -> Operation:
    async with connect(settings) as connection:
        if not here and not (await operate.status(connection)).relays:
            warn("No relay is at work, so it is carried out here")
            here = True
        await connection.rollback()
        work, looks, before = Work(connection), 0, -1
        hook = operate.load_hook(settings.act_hook)
        while True:
            step = await work.step(number) if here else None
            if step and step.ended:
                recorded, *_ = await operate.acts(connection, 1, operation=number)
                await connection.rollback()
                await told(hook, recorded)
            found = await operate.operation(connection, number)
            if not quiet:
                _show_progress(found)
            if found.ended_at:
                return found
            looks = 0 if found.reached != before else looks + 1
            before = found.reached
            if looks == _PATIENCE_LOOKS and not here:
                _hint(found)
            if step is None or step.wait:
                await asyncio.sleep(_LOOK_SECONDS)


def progress(operation: Operation) -> str:
    """Returns how far an operation is, as people say it."""
    if operation.expected is not None:
        return f"{operation.rows} of {operation.expected}"
    return f"{operation.rows} so far"


def _show_progress(found: Operation) -> None:
    if is_terminal() and not found.ended_at and sys.stderr.isatty():
        click.echo(f"\r{found.act} {found.id}: {progress(found)}", nl=False, err=True)
    elif found.ended_at and sys.stderr.isatty():
        click.echo("\r" + " " * 60 + "\r", nl=False, err=True)


def _hint(found: Operation) -> None:
    warn(
        f"Nothing was done of it for ten seconds{f': {found.trouble}' if found.trouble else ''}. "
        f"Older relays do not know of it. Carry it out here: outbox acts {found.id} --here"
    )


def _say(done: Done, wish: Wish, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
    else:
        click.echo(f"{done.rows} {'delivery is' if done.rows == 1 else 'deliveries are'} {_DONE[wish.act]}.")
    warn_of_the_rest(done, wish.act)


def warn_of_the_rest(done: Done, act: str) -> None:
    """Warns of what was left alone, and of what may have arrived."""
    if done.left_out and act == "retry":
        warn(
            f"{done.left_out} left out: an earlier one of their key is parked; --with-earlier takes it along"
        )
    elif done.left_out:
        warn(f"{done.left_out} left out: the table does not take them any more")
    if done.busy:
        warn(f"{done.busy} left alone: a relay was settling them at that moment")
    if done.uncertain:
        warn(f"{done.uncertain} of them may have arrived all the same: an earlier attempt was uncertain")
