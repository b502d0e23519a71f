"""Why a socket is closed: the codes of the contract, one name for each."""

from __future__ import annotations

from typing import NamedTuple


class Close(NamedTuple):
    """What the close frame says. The reason is for people; that of 4401 is one of five words, for clients."""

    code: int
    reason: str


GOING_AWAY = Close(1001, "the server goes away, connect again")
TOO_MUCH = Close(1008, "too many frames")
INTERNAL = Close(1011, "internal error")
OVERLOADED = Close(1013, "overloaded, try again later")
NO_UPDATES = Close(1013, "live updates are not available, try again later")
NO_KEYS = Close(1013, "tokens cannot be checked now, try again later")
TOO_SLOW = Close(1013, "too slow")
EXPIRED = Close(4401, "expired")
EARLY = Close(4401, "early")
SIGNATURE = Close(4401, "signature")
CLAIMS = Close(4401, "claims")
REVOKED = Close(4401, "revoked")
UNANSWERED = Close(4408, "pings were not answered")
TOO_MANY = Close(4429, "too many connections")
