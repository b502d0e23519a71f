"""The command `outbox`: the composition root, and how errors and exit codes look.

Each command is a module of its own, imported when it is called, so that help is quick.
"""

from __future__ import annotations

from importlib import import_module

import click

from outbox.distribution import VERSION
from outbox.errors import OutboxError, SettingsError
from outbox.terminal import visible

COMMANDS = {
    "up": ("outbox.cli.up:up", "Start everything on this machine, and watch messages go through."),
    "relay": ("outbox.cli.relay:relay", "Deliver what the outbox holds, until stopped."),
    "migrate": ("outbox.cli.migrate:migrate", "Bring the database to this version's schema."),
    "grants": ("outbox.cli.migrate:grants", "Print the rights that a part needs, for a role."),
    "config": ("outbox.cli.config:config", "Print the settings in force, and where each came from."),
    "status": ("outbox.cli.look:status", "Tell per sink what is pending; exits 1 if a person should look."),
    "list": ("outbox.cli.listing:list_", "List deliveries by state, sink, key, age, error, …"),
    "groups": ("outbox.cli.listing:groups", "Tell what was parked, by cause."),
    "stuck": ("outbox.cli.listing:stuck", "List what is overdue, or parked."),
    "show": ("outbox.cli.look:show", "Show one delivery, or all of a message."),
    "explain": ("outbox.cli.explain:explain", "Say why something is not out yet, and what mends it."),
    "trace": ("outbox.cli.trace:trace", "Tell the way of a message, with all its deliveries."),
    "retry": ("outbox.cli.act:retry", "Try parked or waiting deliveries again, now."),
    "skip": ("outbox.cli.act:skip", "Give deliveries up, so that their keys go on."),
    "park": ("outbox.cli.act:park", "Stop trying deliveries; a person decides later."),
    "replay": ("outbox.cli.replay:replay", "Send messages again that were delivered, in their order."),
    "acts": ("outbox.cli.acts:acts", "Tell what operators did, and what is under way."),
    "cancel": ("outbox.cli.acts:cancel", "End an operation where it is."),
    "pause": ("outbox.cli.pause:pause", "Send nothing to a sink or destination, or of a key, for now."),
    "resume": ("outbox.cli.pause:resume", "Go on with what was paused."),
    "doctor": (
        "outbox.cli.doctor:doctor",
        "Look for what is wrong, or will be; exits 1 if there is an error.",
    ),
    "repair": ("outbox.cli.repair:repair", "Mend rows of the tables that do not fit together."),
    "huleedu": (
        "outbox.cli.huleedu:huleedu",
        "HuleEdu's services: the example that the outbox was made for.",
    ),
}
"""Where each command is, and its line in the help."""


class Failed(click.ClickException):
    """Says why a command could not do it, and what to do, without a stack trace."""

    exit_code = 1


class Mistaken(click.ClickException):
    """Says which setting is wrong."""

    exit_code = 2


class Commands(click.Group):
    """Imports a command when it is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the commands' names, in the order of a first use."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; returns None if there is none of this name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(module), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command, and tells an error that was raised on purpose in its own words."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise Mistaken(visible(str(error), keep="\n")) from error
        except OutboxError as error:
            raise Failed(visible(str(error), keep="\n")) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="outbox")
def main() -> None:
    """A transactional outbox: what a service writes to a table reaches Kafka and Redis.

    Settings are OUTBOX_… variables, from the environment or the file .env here; see `outbox config`.

    \b
    Exit codes:
      0  it is done, or all is well
      1  it could not be done, or (status) something is stuck, parked or amiss,
         or (doctor) there is an error
      2  a setting, an argument or an option is wrong
    """
