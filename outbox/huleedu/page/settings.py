"""The page's settings: `PAGE_DATABASE_URL`, `PAGE_JWKS` and so on."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from outbox.huleedu.database import DatabaseSettings
from outbox.huleedu.token_settings import TokenSettings
from outbox.settings import Port, Seconds, Words


class PageSettings(DatabaseSettings, TokenSettings):
    """The settings of the page's server: of the browser's way to RAS, and of the demo."""

    prefix: ClassVar[str] = "PAGE_"

    service_name: str = "upload-page"
    """`service.name` in the logs."""
    port: Port = 8000
    """The port to serve HTTP on; 0 takes a free one."""

    ras_url: str
    """Where this server finds RAS, such as `http://ras:8082`."""
    ras_api_key: SecretStr
    """The key that services ask RAS with; no browser ever sees it."""
    ras_service_id: str = "web-page"
    """What this server calls itself when it asks RAS."""
    ras_timeout_seconds: Seconds = 5.0
    """RAS counts as away when it does not answer for this long."""

    demo: bool = False
    """Also serve the upload page, with a login that asks for no password: for demonstrations only. Without it
    this server is the browser's way to RAS and nothing else."""
    gateway_url: str | None = None
    """For the demo: where browsers find the WebSocket gateway, such as `wss://ws.example.com/ws`."""
    token_seconds: Seconds = 3_600.0
    """For the demo: how long the tokens are good that it signs, with `PAGE_JWT_SECRET`."""
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
    def _is_websocket(cls, value: str | None) -> str | None:
        # It stands in the page's Content-Security-Policy.
        if value is not None and not re.fullmatch(r"wss?://[^\s;,'\"]+", value):
            raise ValueError("must start with ws:// or wss://")
        return value

    @field_validator("ras_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not re.match(r"https?://", value):
            raise ValueError("must start with http:// or https://")
        return value

    @field_validator("demo_users")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for user in value:
            if not re.fullmatch(r"[a-z0-9-]{1,64}", user):
                raise ValueError(f"{user!r} is not made of lower-case letters, digits and dashes")
        return value

    @model_validator(mode="after")
    def _has_what_a_demo_needs(self) -> Self:
        if self.demo and not (self.gateway_url and self.jwt_secret):
            raise ValueError("PAGE_DEMO needs PAGE_GATEWAY_URL, and PAGE_JWT_SECRET to sign with")
        return self
