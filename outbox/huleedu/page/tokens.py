"""Who asks: tokens as HuleEdu's Identity service signs them. The demo signs its own."""

from __future__ import annotations

import time
from typing import Any

import jwt
from starlette.exceptions import HTTPException
from starlette.requests import Request

from outbox.huleedu.gateway.keys import KeysUnavailable
from outbox.huleedu.gateway.tokens import Keys, Tokens
from outbox.huleedu.page.settings import PageSettings


class Bearers:
    """Tells users by their tokens, which are checked as the gateway does it."""

    def __init__(self, settings: PageSettings) -> None:
        self._tokens = Tokens(settings)

    @property
    def keys(self) -> Keys:
        """What the tokens are checked with."""
        return self._tokens.keys

    async def user_of(self, request: Request) -> str:
        """Returns the user who makes the request.

        Raises a 401 where no good token says who that is, a 503 where that cannot be told now.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthorized("A token is needed")
        try:
            return (await self._tokens.identify(token.strip())).user
        except jwt.ExpiredSignatureError:
            raise _unauthorized("The token has expired") from None
        except jwt.PyJWTError:
            # Its text may quote the token.
            raise _unauthorized("The token is not good") from None
        except KeysUnavailable:
            raise HTTPException(
                503, "Tokens cannot be checked now, try again", {"Retry-After": "1"}
            ) from None


class DemoTokens:
    """Signs tokens for whoever picks a demo user, with the secret that the gateway knows too."""

    def __init__(self, settings: PageSettings) -> None:
        secret = settings.jwt_secret
        self._secret = secret.get_secret_value().encode() if secret else b""
        self._names = {"aud": settings.jwt_audience, "iss": settings.jwt_issuer}
        self._seconds = int(settings.token_seconds)

    def issue(self, user: str) -> str:
        """Makes a token that says who its bearer is."""
        now = int(time.time())
        claims: dict[str, Any] = {**self._names, "sub": user, "iat": now, "exp": now + self._seconds}
        return jwt.encode(claims, self._secret, "HS256")


def _unauthorized(detail: str) -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})
