"""What a person reads, as tests see it: README, manual, how to contribute, and the examples in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
MANUAL = tuple(sorted(DOCS.glob("*.md")))
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *MANUAL)

_BLOCK = re.compile(
    r"(<!-- example: (?P<name>\w+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_INDENTED = re.compile(r"^    (.*)$", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")


class Block(NamedTuple):
    """A fenced block of code in a page."""

    page: Path
    name: str | None
    """What its example is called; None: it is none."""
    language: str
    text: str


def blocks() -> Iterator[Block]:
    """Every fenced block of every page."""
    for page in PAGES:
        for found in _BLOCK.finditer(page.read_text()):
            yield Block(page, found["name"], found["language"], found["text"])


def example(name: str) -> str:
    """The text of the example of this name."""
    (found,) = [block.text for block in blocks() if block.name == name]
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text())


def spans(page: Path) -> list[str]:
    """What stands as code within the page's sentences and tables."""
    return _SPAN.findall(prose(page))


def lines(page: Path) -> Iterator[str]:
    """Whatever a reader may type: lines of shell and indented blocks, and code in sentences."""
    for block in blocks():
        if block.page == page and block.language in ("sh", "console"):
            for line in block.text.splitlines():
                yield line.removeprefix("$ ").partition("  #")[0].strip()
    yield from (line.partition("  #")[0].strip() for line in _INDENTED.findall(prose(page)))
    yield from spans(page)
