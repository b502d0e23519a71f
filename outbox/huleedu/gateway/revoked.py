"""Tokens that do not count any more though they have not expired: by a key in Redis for each user.

`ws:revoked:{sub}` holds a time in seconds since the epoch: that user's tokens that were issued before it are
refused. It lives until those tokens have ended. A message on the channel of that name says that it was set.
"""

from __future__ import annotations

from outbox.huleedu.gateway.reads import Reads
from outbox.huleedu.gateway.tokens import Identity

PREFIX = "ws:revoked:"
"""What the key of a user, and the channel, begin with."""


class Revocations:
    """Which tokens were revoked."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def cover(self, identity: Identity) -> bool:
        """Returns True if the token was revoked.

        Raises RedisError, OSError or TimeoutError where nobody can say.
        """
        return identity.issued_at < await self._before(identity.user)

    async def _before(self, user: str) -> float:
        (noted,) = await self._reads.ask(("GET", f"{PREFIX}{user}"))
        try:
            return float("-inf") if noted is None else float(noted)
        except ValueError:
            return float("inf")  # Somebody meant to revoke.
