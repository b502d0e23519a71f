"""What README and manual name is there: files, functions, commands, options, targets, events, links."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import reduce
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from outbox.cli import main
from outbox.observe import EVENTS
from tests.support.manual import DOCS, MANUAL, PAGES, ROOT, blocks, lines, prose, spans

_PATH = re.compile(r"(?:outbox|tests|migrations|docs|examples|deploy)/[\w/.{},*-]+|\.ci/run|\.github/[\w/.]+")
_NAMED = re.compile(r"(outbox/[\w/]+)\.py:([\w.]+)")
_LINK = re.compile(r"(?<!\])\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_BUILT = ("docs/site",)
"""Folders that are named and git-ignored."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = {found for span in spans(page) for found in _PATH.findall(span.partition(":")[0])}
    assert [path for path in sorted(named) if path not in _BUILT and not (ROOT / path).exists()] == []


@each_page
def test_every_function_that_a_page_names_is_there(page: Path) -> None:
    for path, name in _NAMED.findall(" ".join(spans(page))):
        module = import_module(path.replace("/", ".").removesuffix(".__init__"))
        assert reduce(getattr, name.split("."), module), f"{path}.py:{name}"


@each_page
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text("utf-8")):
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE), name


@each_page
def test_every_make_target_that_a_page_names_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {match[1] for line in lines(page) if (match := re.match(r"(?:\w+=\S+ )*make ([a-z-]+)", line))}
    assert named <= targets


@each_page
def test_every_command_and_option_that_a_page_names_is_there(page: Path) -> None:
    for line in lines(page):
        if line.startswith("outbox "):
            _check(shlex.split(line)[1:])


def _check(words: list[str]) -> None:
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group) and words:
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found, f"outbox … {name}"
        command = found
    options = {option for each in command.params for option in each.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options


def test_the_map_has_every_room_and_no_other() -> None:
    rooms = re.findall(r"^  ([\w.]+)/? ", _drawing("outbox/"), re.MULTILINE)
    there = {path.name for path in (ROOT / "outbox").iterdir()} - {"__main__.py", "__pycache__", "py.typed"}
    assert sorted(rooms) == sorted(there)


def test_the_layers_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = {
        contract["containers"][0]: contract["layers"] for contract in contracts if "layers" in contract
    }
    for container, first in (("outbox", "cli "), ("outbox.relay", "relay\n")):
        drawn = [re.split(r" {4,}", line)[0].split() for line in _drawing(first).splitlines()]
        assert drawn == [layer.split(" | ") for layer in checked[container]]


def _drawing(first: str) -> str:
    """The block of the page on design that begins so."""
    page = DOCS / "design.md"
    (found,) = [block.text for block in blocks() if block.page == page and block.text.startswith(first)]
    return found


def test_every_event_is_in_the_manual_with_its_fields() -> None:
    rows = re.findall(
        r"^\| `([\w.]+)` \| (\w+) \| (.*?) \|", (DOCS / "operating.md").read_text(), re.MULTILINE
    )
    told = {name: (level, re.findall(r"`(\w+)`", fields)) for name, level, fields in rows}
    levels = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
    assert told == {name: (levels[kind.level], kind.fields.split()) for name, kind in EVENTS.items()}


def test_every_page_of_the_manual_is_in_its_navigation() -> None:
    navigation = yaml.safe_load((DOCS / "mkdocs.yml").read_text())["nav"]
    named = [file for entry in navigation for file in entry.values()]
    assert sorted(named) == [page.name for page in MANUAL]


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [link for link in _links(page) if not _leads_somewhere(page, link)] == []


def _links(page: Path) -> Iterator[str]:
    yield from (link for link in _LINK.findall(prose(page)) if "://" not in link)


def _leads_somewhere(page: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    if page in MANUAL and not target.is_relative_to(DOCS):
        return False  # Not in the site.
    return target.is_file() and (not anchor or anchor in map(_anchor, _HEADING.findall(prose(target))))


def _anchor(heading: str) -> str:
    """As GitHub and the site's generator make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def test_the_readme_takes_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250
