"""What the gateway and the page's server must know to check a user's token."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from outbox.settings import Delay, Seconds, ServiceSettings


class TokenSettings(ServiceSettings):
    """How tokens are checked that HuleEdu's Identity service signs."""

    jwt_secret: SecretStr | None = None
    """The secret of HS256 tokens, 32 bytes at least. Either this or the keys of a JWKS."""
    jwt_secret_before: SecretStr | None = None
    """While a secret is replaced: the one before it, whose tokens are still good."""
    jwks: str | None = None
    """The keys of RS256 and ES256 tokens: an `https://` URL, or a file. Each key's own type decides
    its algorithm."""
    jwks_max_age_seconds: Seconds = 600.0
    """Keys are fetched anew when they are older, so that a withdrawn key is forgotten."""
    jwks_cooldown_seconds: Seconds = 10.0
    """A token that no known key has signed makes the service fetch them anew, at most this often."""
    jwt_audience: str = "huleedu-platform"
    """The `aud` that a token must have."""
    jwt_issuer: str = "huleedu-identity-service"
    """The `iss` that a token must have."""
    jwt_leeway_seconds: Annotated[Delay, Field(le=300)] = 10.0
    """How far the clocks of issuer and service may differ."""

    @field_validator("jwt_secret", "jwt_secret_before")
    @classmethod
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value and len(value.get_secret_value().encode()) < 32:
            raise ValueError("must be at least 32 bytes long (RFC 7518, section 3.2)")
        return value

    @model_validator(mode="after")
    def _has_one_kind_of_key(self) -> Self:
        if bool(self.jwt_secret) == bool(self.jwks):
            raise ValueError(
                f"set either {self.prefix}JWT_SECRET (HS256) or {self.prefix}JWKS (RS256, ES256)"
            )
        return self
