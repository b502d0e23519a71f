"""`outbox relay`: a relay in a process of its own, with its probes, its logs and its signals."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextlib import AsyncExitStack

import click

from outbox.cli.output import settings_of_process
from outbox.distribution import install
from outbox.errors import OperatorError, SettingsError
from outbox.observe import emit
from outbox.process import linger_no_longer, stop_on_signal
from outbox.relay import Relay
from outbox.settings import Settings


@click.command()
def relay() -> None:
    """Deliver what the outbox holds, until stopped. Any number may run on one database.

    Waits for what is down. SIGTERM or Ctrl-C: stop fetching, finish, hand the lanes over, end with 0;
    a second one ends it at once. Logs go to stderr.
    """
    chosen = settings_of_process(Settings)
    if not chosen.sink_names:
        raise SettingsError(
            "There is nowhere to deliver to: "
            "set OUTBOX_KAFKA_BOOTSTRAP_SERVERS, OUTBOX_REDIS_URL or OUTBOX_SINKS"
        )
    _ = chosen.asyncpg_dsn  # A missing database is told before anything starts.
    collect_less_often()
    try:
        asyncio.run(_run(chosen))
    except TimeoutError:
        raise OperatorError(_not_done(chosen)) from None


def _not_done(settings: Settings) -> str:
    return (
        f"Not done within OUTBOX_SHUTDOWN_GRACE_SECONDS={settings.shutdown_grace_seconds:g}; "
        "what was on its way is sent again by the next relay"
    )


def collect_less_often() -> None:
    """Tells the garbage collector that this process makes many tuples and hardly a cycle.

    By its defaults it looks at every batch several times, for a tenth of the relay's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


async def _run(settings: Settings) -> None:
    relay = Relay(settings)

    def stop(reason: str) -> None:
        relay.stop(reason)
        _end_in_time(settings)

    stop_on_signal(stop)
    async with AsyncExitStack() as stack:
        try:
            from outbox.web import serving  # an extra, which may be missing
        except ModuleNotFoundError as error:
            emit("http.missing", reason=f"no probes and metrics: {error}; {install('web')}")
        else:
            await stack.enter_async_context(serving(relay, settings))
        await relay.run()
    linger_no_longer()


def _end_in_time(settings: Settings) -> None:
    """Ends the process once the grace period is over, whatever hangs: a sink, or a thread."""

    def end() -> None:
        click.echo(f"Error: {_not_done(settings)}", err=True)
        os._exit(1)

    timer = threading.Timer(settings.shutdown_grace_seconds, end)
    timer.daemon = True
    timer.start()
