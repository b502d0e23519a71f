"""Takes secrets out of what is shown."""

from __future__ import annotations

import re

_PASSWORD_IN_URL = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s:/@]*):\S*@", re.IGNORECASE)
_PASSWORD_IN_QUERY = re.compile(r"(?P<before>[?&](ssl)?password=)[^&\s]+", re.IGNORECASE)


def masked(text: str) -> str:
    """Returns the text with the password of each URL in it replaced by stars."""
    text = _PASSWORD_IN_URL.sub(r"\g<before>:***@", text)
    return _PASSWORD_IN_QUERY.sub(r"\g<before>***", text)
