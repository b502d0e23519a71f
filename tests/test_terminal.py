"""Text from a database or a broker reaches a terminal with its control characters shown, not obeyed."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from unicodedata import category

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from outbox.cli import Commands
from outbox.cli.output import print_facts, print_json, print_table, warn
from outbox.demo.story import Story
from outbox.errors import OperatorError
from outbox.logs import configure_logging
from outbox.settings import Settings
from outbox.terminal import visible

NASTY = [
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\x9b31m",
    "a\rb",
    "a\nb",
    "\x7f",
    "\u202egnp.exe",
    "\u2028",
    "a\0b",
    "\ud800",
]
TEXTS = st.text() | st.sampled_from(NASTY)


def obeyed(output: str) -> set[str]:
    return {each for each in output if category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - {"\n"}


def printed(command: Callable[[], None]) -> str:
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(output):
        command()
    return output.getvalue()


@given(TEXTS)
def test_any_text_is_shown(text: str) -> None:
    shown = visible(text)
    assert obeyed(shown) == set()
    assert "\n" not in shown
    assert visible(shown) == shown


@pytest.mark.parametrize("text", ["", "essay 30", "größer als 1 €", "答案\u3000二", "👩🏽"])
def test_what_is_only_shown_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_it_is_written_out() -> None:
    assert visible("a\x1b[2J\n\u202eb") == r"a\x1b[2J\n\u202eb"
    assert visible("two\nlines\r", keep="\n") == "two\nlines\\r"


@given(TEXTS, TEXTS)
def test_tables_facts_and_warnings(one: str, other: str) -> None:
    output = printed(lambda: print_table(("key", "error"), [(one, other)]))
    assert obeyed(output) == set()
    assert output.count("\n") == 2
    output = printed(lambda: print_facts({one: other}))
    assert obeyed(output) == set()
    assert output.count("\n") == 1
    assert obeyed(printed(lambda: warn(one))) == set()


@given(st.dictionaries(TEXTS, TEXTS))
def test_json_stays_json(value: Mapping[str, str]) -> None:
    output = printed(lambda: print_json(value))
    assert obeyed(output) == set()
    assert json.loads(output) == value


@given(TEXTS)
def test_errors(text: str) -> None:
    @click.command()
    def failing() -> None:
        raise OperatorError(text)

    class Failing(Commands):
        def get_command(self, *_: object) -> click.Command:
            return failing

    result = CliRunner().invoke(Failing(), ["failing"])
    assert result.exit_code == 1
    assert obeyed(result.output) == set()


@given(TEXTS)
def test_the_log_on_a_terminal(text: str) -> None:
    root = logging.getLogger()
    before = root.handlers, root.level
    try:
        with redirect_stderr(io.StringIO()) as output:
            configure_logging(Settings(log_format="console"))
            logging.getLogger("somebody").warning("%s", text)
    finally:
        root.handlers, level = before
        root.setLevel(level)
    assert obeyed(output.getvalue()) == set()
    assert output.getvalue().count("\n") == 1


@given(TEXTS)
def test_the_demos_story(text: str) -> None:
    output = io.StringIO()
    story = Story(Console(file=output, width=10_000))
    story.say(text)
    story.hear("relay 1", {"event": "breaker.opened", "sink": "kafka", "reason": text})
    assert obeyed(output.getvalue()) == set()
    assert output.getvalue().count("\n") == 2
