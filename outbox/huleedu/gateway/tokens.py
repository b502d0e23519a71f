"""Whose socket it is: finds the token in the request and checks it.

What the token says of itself decides nothing: with a secret only HS256 is accepted, with a JWKS
only the algorithm that belongs to the type of the key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

import jwt
from jwt.exceptions import InvalidSubjectError
from pydantic import SecretStr
from websockets.datastructures import MultipleValuesError
from websockets.http11 import Request

from outbox.huleedu.gateway.closing import CLAIMS, EARLY, EXPIRED, SIGNATURE, Close
from outbox.huleedu.gateway.keys import JwksKeys
from outbox.huleedu.token_settings import TokenSettings

Key = bytes | jwt.PyJWK

_NOT_BY_THIS_KEY = (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError)
_CLAIMS = (
    jwt.InvalidAudienceError,
    jwt.InvalidIssuedAtError,
    jwt.InvalidIssuerError,
    InvalidSubjectError,
    jwt.MissingRequiredClaimError,
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a good token says."""

    user: str
    expires_at: int
    """Seconds since the epoch."""
    issued_at: float
    """Seconds since the epoch; 0 where the token does not say."""


class Keys(Protocol):
    """Where the keys come from."""

    @property
    def have_ids(self) -> bool:
        """True if it matters what a token calls its key."""

    @property
    def ready(self) -> bool:
        """True if tokens can be checked now."""

    async def run(self) -> None:
        """Keeps the keys fresh, for ever."""

    def known(self, key_id: str | None) -> Sequence[Key]:
        """Returns the keys that are known for what a token calls its key."""

    async def fresh(self, key_id: str | None) -> Sequence[Key]:
        """Returns them from keys fetched now. Raises `KeysUnavailable` if none could be."""


class Secrets:
    """The secret that issuer and gateway share, and perhaps the one before it."""

    ready = True
    have_ids = False

    def __init__(self, *secrets: SecretStr | None) -> None:
        self._secrets = [secret.get_secret_value().encode() for secret in secrets if secret]

    async def run(self) -> None:
        """Returns at once: a secret is always fresh."""

    def known(self, _key_id: str | None) -> Sequence[bytes]:
        """Returns all secrets, whatever the token calls its own."""
        return self._secrets

    async def fresh(self, _key_id: str | None) -> Sequence[bytes]:
        """Returns none: there are no others."""
        return ()


class Tokens:
    """Checks tokens: signature, algorithm, `aud`, `iss`, `exp` and `sub`, all of them required."""

    def __init__(self, settings: TokenSettings) -> None:
        self.keys: Keys
        self._algorithms: Sequence[str]
        if settings.jwks:
            self.keys, self._algorithms = JwksKeys(settings.jwks, settings), ("RS256", "ES256")
        else:
            secrets = Secrets(settings.jwt_secret, settings.jwt_secret_before)
            self.keys, self._algorithms = secrets, ("HS256",)
        self._expected: dict[str, Any] = {
            "audience": settings.jwt_audience,
            "issuer": settings.jwt_issuer,
            "leeway": settings.jwt_leeway_seconds,
            "options": {"require": ["aud", "iss", "exp", "sub"], "enforce_minimum_key_length": True},
        }

    async def identify(self, token: str) -> Identity:
        """Returns who the bearer of a token is.

        Raises `jwt.PyJWTError` for a token that is not good, and what `Keys.fresh` raises: one is refused
        for its signature only by keys that were fetched after it came, since a key may be replaced.
        """
        if not token.isascii():  # It may hold what cannot even be encoded: half a surrogate pair.
            raise jwt.DecodeError("A token is ASCII")
        key_id = jwt.get_unverified_header(token).get("kid") if self.keys.have_ids else None
        claims = self._claims(token, self.keys.known(key_id))
        if claims is None:
            claims = self._claims(token, await self.keys.fresh(key_id))
        if claims is None:
            raise jwt.InvalidSignatureError("Not signed by any key")
        user = claims["sub"]
        # It becomes the name of a channel and stands in logs.
        if not user.isprintable() or not 0 < len(user) <= 255:
            raise InvalidSubjectError("Subject must be 1 to 255 printable characters")
        return Identity(user, int(claims["exp"]), float(claims.get("iat", 0)))

    def _claims(self, token: str, keys: Sequence[Key]) -> dict[str, Any] | None:
        for key in keys:
            with contextlib.suppress(*_NOT_BY_THIS_KEY):
                return jwt.decode(token, key, self._algorithms, **self._expected)
        return None


def refusal_of(error: jwt.PyJWTError) -> Close:
    """Returns how a socket is closed whose token is not good for this reason."""
    match error:
        case jwt.ExpiredSignatureError():
            return EXPIRED
        case jwt.ImmatureSignatureError():
            return EARLY
        case _:
            return CLAIMS if isinstance(error, _CLAIMS) else SIGNATURE


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
    return query(request, "token") or None


BEARER = "bearer"
"""The subprotocol that a browser offers before its token, and that the gateway answers."""


def query(request: Request, name: str) -> str | None:
    """Returns a parameter of the request's query; None where it is missing."""
    return parse_qs(request.path.partition("?")[2], keep_blank_values=True).get(name, [None])[0]
