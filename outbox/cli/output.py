"""What commands print: tables for people, JSON for programs, and warnings on stderr."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from outbox.settings import Reading, ServiceSettings, Settings, read
from outbox.terminal import visible, visible_json

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=ServiceSettings)

as_json: Callable[[F], F] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings() -> Settings:
    """Returns the settings in force; a variable that looks like one and is none gets a warning."""
    return reading().settings


def reading() -> Reading[Settings]:
    """Returns what was read of the settings; a variable that looks like one and is none gets a warning."""
    found = read()
    for warning in found.warnings:
        warn(warning)
    return found


def settings_of_process(model: type[S]) -> S:
    """Returns the settings of a process that logs; the warnings are lines of its log."""
    from outbox.logs import configure_logging

    found = model.read()
    configure_logging(found.settings)
    return found.logged()


def warn(message: str) -> None:
    """Prints a warning on stderr."""
    click.secho(f"Warning: {visible(message)}", fg="yellow", err=True)


def print_json(value: Any) -> None:
    """Prints a value as JSON: dataclasses become objects, times RFC 3339, ids text."""
    click.echo(visible_json(json.dumps(value, default=_plain, ensure_ascii=False, indent=2)))


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table; with colours on a terminal, else plain columns that are never cut.

    Where a terminal is too narrow, the last column is under each row.
    """
    cells = [[cell(value) for value in row] for row in rows]
    if is_terminal():
        _print_on_terminal(columns, cells)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in (columns, *cells):
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _print_on_terminal(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    is_narrow = sum(widths) + 2 * (len(widths) - 1) > shutil.get_terminal_size().columns
    shown = len(columns) - is_narrow
    for line, is_head in ((columns, True), *((row, False) for row in cells)):
        padded = zip(line[:shown], widths, strict=False)
        styled = (
            click.style(text.ljust(width), bold=is_head, fg=_STYLES.get(text)) for text, width in padded
        )
        click.echo("  ".join(styled).rstrip())
        if is_narrow and not is_head and line[-1] != "-":
            print_lines(line[-1], indent="    ")


_STYLES = {
    "parked": "red",
    "retrying": "yellow",
    "held": "yellow",
    "delivered": "green",
}


def print_lines(text: str, *, indent: str = "") -> None:
    """Prints a text from elsewhere; on a terminal, in lines that are indented alike."""
    shown = visible(text)
    if is_terminal():
        width = max(40, shutil.get_terminal_size().columns)
        shown = textwrap.fill(
            shown, width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
        )
    else:
        shown = indent + shown
    click.echo(shown)


def is_terminal() -> bool:
    """Returns whether somebody reads along."""
    return sys.stdout.isatty()


def print_facts(facts: Mapping[str, Any]) -> None:
    """Prints names and values, one a line; what is None is left out."""
    known = {visible(name): cell(value) for name, value in facts.items() if value is not None}
    width = max(map(len, known), default=0)
    for name, text in known.items():
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {text}")


def cell(value: Any) -> str:
    """Returns a value as a table shows it: in one line, of which a terminal obeys nothing."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
        case _:
            return visible(str(value))


def duration(seconds: float | None) -> str | None:
    """Returns seconds as people say them: 850 ms, 12 s, 3 m 20 s, 5 h 3 m, 2 d 4 h."""
    if seconds is None:
        return None
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    whole = int(seconds)
    parts = ((whole // 86_400, "d"), (whole // 3_600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def age(time: datetime) -> str | None:
    """Returns how long ago that time was, as people say it."""
    return duration(max(0.0, (datetime.now(UTC) - time).total_seconds()))
