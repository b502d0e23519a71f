"""Tells whether a file is text, and which: from its bytes, whatever its name or sender says."""

from __future__ import annotations

import codecs
import re

_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"", "utf-8"),
)
# Bytes of a picture or a program are sometimes valid UTF-8; these are in no text.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff]")
_KNOWN = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a Word document or another archive"),
    (b"\xd0\xcf\x11\xe0", "an old Word document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (rb"{\rtf", "a rich text document"),
)


class NotText(ValueError):
    """A file is no text; says what it is, as far as that can be told."""


def text_of(content: bytes) -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 with its mark. Raises `NotText`."""
    for start, what in _KNOWN:
        if content.startswith(start):
            raise NotText(f"It is {what}; save the essay as plain text")
    encoding = next(name for mark, name in _ENCODINGS if content.startswith(mark))
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise NotText("It is no text, or not in UTF-8; save the essay as plain text in UTF-8") from None
    if _CONTROL.search(text):
        raise NotText("It is no text; save the essay as plain text")
    if not text.strip():
        raise NotText("There is nothing in it")
    return text
