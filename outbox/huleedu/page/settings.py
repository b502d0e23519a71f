"""The page's settings: `PAGE_DATABASE_URL`, `PAGE_JWT_SECRET` and so on."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr, field_validator

from outbox.huleedu.database import DatabaseSettings
from outbox.settings import Port, Seconds, Words


class PageSettings(DatabaseSettings):
    """The settings of the upload page's server."""

    prefix: ClassVar[str] = "PAGE_"

    service_name: str = "upload-page"
    """`service.name` in the logs."""
    port: Port = 8000
    """The port of the page; 0 takes a free one."""

    gateway_url: str
    """Where browsers find the WebSocket gateway, such as `wss://ws.example.com/ws`."""
    ras_url: str
    """Where this server finds RAS, such as `http://ras:8082`."""
    ras_api_key: SecretStr
    """The key that services ask RAS with; no browser ever sees it."""
    ras_service_id: str = "web-page"
    """What this server calls itself when it asks RAS."""
    ras_timeout_seconds: Seconds = 5.0
    """RAS counts as away when it does not answer for this long."""

    jwt_secret: SecretStr
    """The secret that tokens are signed with, the gateway's too; 32 bytes at least."""
    jwt_audience: str = "huleedu-platform"
    """The `aud` of tokens."""
    jwt_issuer: str = "huleedu-identity-service"
    """The `iss` of tokens."""
    token_seconds: Seconds = 3_600.0
    """How long a token is good."""
    demo_users: Annotated[Words, Field(min_length=1)] = (
        "astrid",
        "bilal",
        "chloe",
        "davit",
    )
    """Whom anybody may be, without a password, separated by commas: lower-case letters, digits and dashes."""

    slots: int = Field(100, ge=1, le=1_000)
    """Essays of a batch, at the most."""
    files_per_batch: int = Field(200, ge=1)
    """Files that a batch may be given, those that find no slot included."""
    batches_per_user: int = Field(100, ge=1)
    """Batches of one user, at the most."""
    file_bytes: int = Field(1_000_000, ge=1)
    """The largest file."""
    file_name_characters: int = Field(255, ge=1, le=1_024)
    """The longest name of a file."""
    upload_seconds: Seconds = 30.0
    """How long a request may take to arrive."""

    @field_validator("gateway_url")
    @classmethod
    def _is_websocket(cls, value: str) -> str:
        # It stands in the page's Content-Security-Policy.
        if not re.fullmatch(r"wss?://[^\s;,'\"]+", value):
            raise ValueError("must start with ws:// or wss://")
        return value

    @field_validator("ras_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not re.match(r"https?://", value):
            raise ValueError("must start with http:// or https://")
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _is_long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value().encode()) < 32:
            raise ValueError("must be at least 32 bytes long (RFC 7518, section 3.2)")
        return value

    @field_validator("demo_users")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for user in value:
            if not re.fullmatch(r"[a-z0-9-]{1,64}", user):
                raise ValueError(f"{user!r} is not made of lower-case letters, digits and dashes")
        return value
