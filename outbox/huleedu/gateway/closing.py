"""Why a socket is closed: the codes of the contract, one name for each."""

from __future__ import annotations

from typing import NamedTuple


class Close(NamedTuple):
    """What the close frame says; the reason is for people."""

    code: int
    reason: str


GOING_AWAY = Close(1001, "the server goes away, connect again")
TOO_MUCH = Close(1008, "too many frames")
INTERNAL = Close(1011, "internal error")
OVERLOADED = Close(1013, "overloaded, try again later")
NO_UPDATES = Close(1013, "live updates are not available, try again later")
NO_KEYS = Close(1013, "tokens cannot be checked now, try again later")
TOO_SLOW = Close(1013, "too slow")
NO_TOKEN = Close(4401, "no token")
REFUSED = Close(4401, "token refused")
EXPIRED = Close(4401, "token expired")
UNANSWERED = Close(4408, "pings were not answered")
TOO_MANY = Close(4429, "too many connections")
