"""Whose socket it is: finds the token in the request and checks it.

What the token says of itself decides nothing: with a secret only HS256 is accepted, with a JWKS
only the algorithm that belongs to the type of the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

import jwt
from websockets.datastructures import MultipleValuesError
from websockets.http11 import Request

from outbox.huleedu.gateway.keys import JwksKeys
from outbox.huleedu.gateway.settings import GatewaySettings

Key = bytes | jwt.PyJWK


@dataclass(frozen=True, slots=True)
class Identity:
    """What a good token says."""

    user: str
    expires_at: int
    """Seconds since the epoch."""


class Keys(Protocol):
    """Where the keys come from."""

    @property
    def ready(self) -> bool:
        """True if tokens can be checked now."""

    async def run(self) -> None:
        """Keeps the keys fresh, for ever."""

    async def find(self, key_id: str | None) -> Key:
        """Returns the key that a token names by this id.

        Raises `jwt.InvalidTokenError` where there is none, `KeysUnavailable` where none is known yet.
        """


class SecretKey:
    """One secret that issuer and gateway share."""

    ready = True

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    async def run(self) -> None:
        """Returns at once: a secret is always fresh."""

    async def find(self, _key_id: str | None) -> bytes:
        """Returns the secret, whatever the token calls it."""
        return self._secret


class Tokens:
    """Checks tokens: signature, algorithm, `aud`, `iss`, `exp` and `sub`, all of them required."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.keys: Keys
        self._algorithms: Sequence[str]
        if settings.jwks:
            self.keys, self._algorithms = JwksKeys(settings.jwks, settings), ("RS256", "ES256")
        elif settings.jwt_secret:
            self.keys, self._algorithms = SecretKey(settings.jwt_secret.get_secret_value()), ("HS256",)
        self._expected: dict[str, Any] = {
            "audience": settings.jwt_audience,
            "issuer": settings.jwt_issuer,
            "leeway": settings.jwt_leeway_seconds,
            "options": {"require": ["aud", "iss", "exp", "sub"], "enforce_minimum_key_length": True},
        }

    async def identify(self, token: str) -> Identity:
        """Returns who the bearer of a token is.

        Raises `jwt.PyJWTError` for a token that is not good, and what `Keys.find` raises.
        """
        key = await self.keys.find(jwt.get_unverified_header(token).get("kid"))
        claims = jwt.decode(token, key, self._algorithms, **self._expected)
        user = claims["sub"]
        # It becomes the name of a channel and stands in logs.
        if not user.isprintable() or not 0 < len(user) <= 255:
            raise jwt.InvalidTokenError("Subject must be 1 to 255 printable characters")
        return Identity(user, int(claims["exp"]))


def find_token(request: Request) -> str | None:
    """Returns the token of a handshake: of its header, its subprotocols or its query, in this order."""
    try:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    except MultipleValuesError:
        return None
    if scheme.lower() == "bearer":
        return token.strip()
    offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol")).split(",")
    if len(offered) == 2 and offered[0].strip() == BEARER:
        return offered[1].strip()
    return query(request, "token")


BEARER = "bearer"
"""The subprotocol that a browser offers before its token, and that the gateway answers."""


def query(request: Request, name: str) -> str | None:
    """Returns a parameter of the request's query; None where it is missing or empty."""
    return parse_qs(request.path.partition("?")[2]).get(name, [None])[0]
