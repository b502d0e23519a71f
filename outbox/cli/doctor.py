"""`outbox doctor`: what is wrong with the database, the relays and the brokers, and what mends it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import click

from outbox.cli.output import as_json, print_json, print_lines, settings
from outbox.finding import Finding
from outbox.operate.doctor import Report, checks, examine
from outbox.settings import Settings
from outbox.sinks.checking import check

_COLOURS = {"error": "red", "warning": "yellow", "unknown": "cyan"}


@click.command()
@click.option("--only", multiple=True, metavar="NAME,…", help="Only these checks; a wrong name lists all.")
@as_json
@click.pass_context
def doctor(ctx: click.Context, *, only: Sequence[str], as_json: bool) -> None:
    """Look for what is wrong with the schema, the database, relays, lanes and sinks; change nothing.

    Each finding has its remedy. Exits 1 if there is an error, else 0. Sinks are examined as they are set
    here, so run it where a relay runs, with its settings. It ends by itself, whatever hangs.

    \b
    error    deliveries do not go out, or may be lost or out of order
    warning  it works, and costs, or will hurt one day
    unknown  it could not be looked at, for want of a right or of time
    """
    chosen = settings()
    report = asyncio.run(examine(chosen, check, only=_known(only, chosen)))
    if as_json:
        print_json({"findings": report.findings, "checked": report.checked})
    else:
        _print(report)
    if report.has_errors:
        ctx.exit(1)


def _known(only: Sequence[str], settings: Settings) -> list[str]:
    names = [name.strip() for each in only for name in each.split(",")]
    known = checks(settings)
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(known)}", param_hint="--only")
    return names


def _print(report: Report) -> None:
    for finding in report.findings:
        _print_finding(finding)
    counts = Counter(finding.severity for finding in report.findings)
    told = ", ".join(f"{number} {name}{'s' if number > 1 else ''}" for name, number in counts.items())
    print_lines(f"{told or 'All is well'}. Looked at: {', '.join(report.checked)}.")


def _print_finding(finding: Finding) -> None:
    click.secho(f"{finding.severity}: {finding.check}", fg=_COLOURS[finding.severity], bold=True)
    print_lines(finding.sentence, indent="  ")
    print_lines(f"→ {finding.remedy}", indent="  ")
    click.echo()
