"""Who asks: tokens as HuleEdu's Identity service signs them, given here to anybody who picks a demo user."""

from __future__ import annotations

import time
from typing import Any

import jwt
from starlette.exceptions import HTTPException
from starlette.requests import Request

from outbox.huleedu.page.settings import PageSettings


class DemoTokens:
    """Signs and checks tokens, with the secret that the gateway knows too."""

    def __init__(self, settings: PageSettings) -> None:
        self._secret = settings.jwt_secret.get_secret_value().encode()
        self._names = {"aud": settings.jwt_audience, "iss": settings.jwt_issuer}
        self._seconds = int(settings.token_seconds)

    def issue(self, user: str) -> str:
        """Makes a token that says who its bearer is."""
        now = int(time.time())
        claims: dict[str, Any] = {**self._names, "sub": user, "iat": now, "exp": now + self._seconds}
        return jwt.encode(claims, self._secret, "HS256")

    def user_of(self, request: Request) -> str:
        """Returns the user who makes the request. Raises a 401 where no good token says who that is."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthorized("A token is needed")
        try:
            claims = jwt.decode(
                token.strip(),
                self._secret,
                ["HS256"],
                audience=self._names["aud"],
                issuer=self._names["iss"],
                options={"require": ["aud", "iss", "exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise _unauthorized("The token has expired") from None
        except jwt.PyJWTError:
            # Its text may quote the token.
            raise _unauthorized("The token is not good") from None
        return str(claims["sub"])


def _unauthorized(detail: str) -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})
