"""Text from elsewhere on a terminal: what would be obeyed there is shown.

A key, a destination or a broker's error may hold what moves the cursor, changes a title or turns the
writing round.
"""

from __future__ import annotations

import json
from unicodedata import category

_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's control and format characters, halves of a pair, and separators of lines and paragraphs."""


def visible(text: str, *, keep: str = "") -> str:
    r"""Returns the text with control characters written out, as `\x1b`, but for those to `keep`."""
    if text.isprintable():
        return text
    return "".join(
        _written_out(each) if category(each) in _OBEYED and each not in keep else each for each in text
    )


def visible_json(document: str) -> str:
    """Returns the same JSON, with what a terminal would obey in JSON's own escapes."""
    return "".join(
        json.dumps(each)[1:-1] if category(each) in _OBEYED and each != "\n" else each for each in document
    )


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode()
