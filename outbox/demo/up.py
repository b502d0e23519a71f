"""`outbox up`, composed: servers, schema, listeners, relays, HuleEdu, the stream, the screen; then the check.

Everything is started here, and ended here in the opposite order, whichever way it comes to an end.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from outbox import migrate
from outbox.demo.breakage import Breakage
from outbox.demo.check import check, drain
from outbox.demo.ending import Ending, ending
from outbox.demo.huleedu import HuleEdu
from outbox.demo.keys import pressed
from outbox.demo.ledger import Ledger
from outbox.demo.listen import kafka_listener, redis_listener
from outbox.demo.relays import QUICK, Relays
from outbox.demo.screen import KEYS, Screen
from outbox.demo.story import Story
from outbox.demo.stream import Stream, enter_leftover, prepare
from outbox.devstack import Stack, running_stack
from outbox.errors import DevstackError, OutboxError, SettingsError
from outbox.huleedu import migrate as huleedu_migrate
from outbox.huleedu.channels import channel_of
from outbox.settings import Reading, Settings

_BEFORE_BREAK_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0
_HURRIED_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `outbox up` is asked for."""

    seconds: float | None
    """How long to write; None: until somebody ends it."""
    rate: float
    """Messages a second."""
    keep: Path | None
    """Where the local servers' data stays; None: it goes with them."""
    breaks: Sequence[str]
    """What to take away, one after the other."""
    break_seconds: float
    """For how long."""


@dataclass(frozen=True, slots=True)
class _System:
    """Everything that runs."""

    stack: Stack
    ledgers: Mapping[str, Ledger]
    stream: Stream
    relays: Relays
    huleedu: HuleEdu
    breakage: Breakage


async def up(options: Options, reading: Reading[Settings], story: Story) -> bool:
    """Runs the demo until it is to end; returns whether every promise was kept."""
    _refuse_to_break(options.breaks, reading.settings)
    try:
        with ending() as end, _locked(options.keep):
            async with AsyncExitStack() as exits:
                system = await _start(exits, options, reading, story, end)
                began = monotonic()
                await _watch(system, options, story, end)
                return await _sum_up(system, options, story, monotonic() - began, in_full=not end.hurried)
    except* OutboxError as errors:
        # One of them is enough to tell what to do.
        raise _first(errors) from None


async def _start(
    exits: AsyncExitStack, options: Options, reading: Reading[Settings], story: Story, end: Ending
) -> _System:
    with story.starting() as report:
        stack = await exits.enter_async_context(
            running_stack(reading.settings, keep=options.keep, report=report)
        )
        settings = stack.settings
        report("schema", "migrating")
        await asyncio.to_thread(migrate.upgrade, settings)
        await asyncio.to_thread(huleedu_migrate.upgrade, settings)
        await prepare(settings)
        report("schema", "ready")
        report("relays", "starting")
        ledgers = {sink: Ledger(sink) for sink in ("kafka", "redis")}
        channels = await enter_leftover(settings, ledgers)
        if left := sum(ledger.waiting for ledger in ledgers.values()):
            story.say(f"{left:,} deliveries were left by earlier runs")
        stream = Stream(settings, ledgers, options.rate)
        channels |= {channel_of(user) for user in stream.users}
        await exits.enter_async_context(kafka_listener(settings.kafka, ledgers["kafka"]))
        await exits.enter_async_context(redis_listener(settings.redis, ledgers["redis"], channels))
        relays = await exits.enter_async_context(
            Relays(settings, _environment(stack, reading), ledgers, story.hear)
        )
        report("relays", "ready")
        report("HuleEdu", "starting")
        huleedu = HuleEdu(settings, stack.environment())
        await exits.enter_async_context(huleedu.running())
        report("HuleEdu", "ready")
    story.print(f"To upload essays and see them find their slots: {huleedu.url}", whole=True)
    if postgres := stack.local.get("postgres"):
        story.print(f"In another terminal: OUTBOX_DATABASE_URL={postgres.url} outbox status", whole=True)
    breakage = Breakage(stack.local, relays, ledgers, story.say, end)
    return _System(stack, ledgers, stream, relays, huleedu, breakage)


def _environment(stack: Stack, reading: Reading[Settings]) -> dict[str, str]:
    """Returns what relays have to know besides our own environment."""
    quick = {} if QUICK.keys() & reading.origins.keys() else QUICK
    return {**stack.environment(), **quick}


async def _watch(system: _System, options: Options, story: Story, end: Ending) -> None:
    """Writes and shows until it is time to end, then until all that was written has arrived."""
    breakage = system.breakage
    async with asyncio.TaskGroup() as group:
        breaking = [group.create_task(_break_in_turn(options, breakage, end))]

        def press(key: str) -> None:
            if key == "q":
                end.ask()
            elif (name := KEYS.get(key)) in breakage.breakable:
                breaking.append(group.create_task(breakage.take_away(name, options.break_seconds)))

        with pressed(press) as keyboard:
            screen = Screen(story, system.ledgers, system.stream, system.relays, breakage)
            writing = group.create_task(system.stream.run())
            others = [
                group.create_task(system.relays.watch()),
                group.create_task(system.huleedu.watch()),
                group.create_task(screen.run(keyboard=keyboard)),
                group.create_task(_time(options.seconds, breaking, end)),
            ]
            await end.wait()
            system.stream.stop()
            await _settle(system, breaking, writing, hurried=end.hurried)
            for task in (writing, *others):
                task.cancel()


async def _break_in_turn(options: Options, breakage: Breakage, end: Ending) -> None:
    for name in options.breaks:
        await end.wait(_BEFORE_BREAK_SECONDS)
        if end.asked:
            return
        await breakage.take_away(name, options.break_seconds)


async def _time(seconds: float | None, breaking: Sequence[asyncio.Task[None]], end: Ending) -> None:
    """Asks for the end after so many seconds, but not while something is away."""
    if seconds is not None:
        await asyncio.sleep(seconds)
        await asyncio.wait(breaking)
        end.ask()


async def _settle(
    system: _System, breaking: Sequence[asyncio.Task[None]], writing: asyncio.Task[None], *, hurried: bool
) -> None:
    """Waits until all is back and everything has arrived; not for long if there is no time."""
    patience = _HURRIED_PATIENCE_SECONDS if hurried else _PATIENCE_SECONDS
    if hurried:
        for task in breaking:
            task.cancel()
        await asyncio.wait(breaking)
        postgres = system.stack.local.get("postgres")
        if postgres and not postgres.running:
            # It tells what was not delivered, and a clean end leaves no shared memory behind.
            await postgres.start()
    await asyncio.wait(breaking)
    await asyncio.wait([writing], timeout=patience)
    await drain(system.stack.settings, system.ledgers.values(), patience)


async def _sum_up(system: _System, options: Options, story: Story, seconds: float, *, in_full: bool) -> bool:
    """Prints what was written, what happened and what arrived; returns whether every promise was kept."""
    stream, ledgers = system.stream, system.ledgers.values()
    story.print()
    story.print(
        f"{stream.written:,} messages in {stream.committed:,} transactions within "
        f"{seconds:.0f} s; {stream.rolled_back:,} more transactions were rolled back on purpose"
    )
    for outcome in system.breakage.outcomes:
        story.print(outcome)
    findings = [
        await check(system.stack.settings, ledger, unsure=stream.unsure, in_full=in_full)
        for ledger in ledgers
    ]
    for ledger, finding in zip(ledgers, findings, strict=True):
        story.print(f"{ledger.sink}: {finding.text}", style="" if finding.well else "red")
    well = all(finding.well for finding in findings)
    if not well:
        story.print("NOT every promise was kept.", style="bold red")
    elif in_full or not any(ledger.waiting for ledger in ledgers):
        story.print("Every promise was kept.", style="green")
    else:
        story.print("Stopped before everything could arrive; so far every promise was kept.")
    if options.keep and system.stack.local:
        story.print(f"The data stays in {options.keep}, and --keep {options.keep} goes on with it.")
    return well


def _refuse_to_break(names: Sequence[str], settings: Settings) -> None:
    given = {
        "postgres": ("OUTBOX_DATABASE_URL", settings.database_url),
        "kafka": ("OUTBOX_KAFKA_BOOTSTRAP_SERVERS", settings.kafka.bootstrap_servers),
        "redis": ("OUTBOX_REDIS_URL", settings.redis.url),
    }
    for name in names:
        variable, value = given.get(name, ("", None))
        if value is not None:
            raise SettingsError(
                f"--break {name} is for a server of our own, and {variable} names one of yours"
            )


@contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    """Keeps everybody else from the folder within the block; makes it if it is not there."""
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise DevstackError(f"{folder} cannot be used: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DevstackError(f"{folder} is in use by another `outbox up`") from None
        yield


def _first(errors: BaseExceptionGroup[OutboxError]) -> OutboxError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
