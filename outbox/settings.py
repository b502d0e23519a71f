"""Settings: the environment and `.env`, read here and nowhere else, into frozen objects.

`Settings()` reads; a wrong value raises `SettingsError`, which names the variable and what is
allowed. A sink's own settings are `OUTBOX_<SINK>_<NAME>`; the failure policy may be set for all
sinks (`OUTBOX_MAX_RETRIES`) or for one (`OUTBOX_REDIS_MAX_RETRIES`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dotenv import dotenv_values
from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from outbox.errors import SettingsError
from outbox.retry import Backoff, Policy

PREFIX = "OUTBOX_"

Positive = Annotated[float, Field(gt=0)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class _Section(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            prefix = str(self.model_config.get("env_prefix", PREFIX))
            raise SettingsError(_explain(error, values.get("_env_prefix", prefix))) from None


class SinkSettings(_Section):
    """What every sink has: its failure policy and its limits."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env")

    max_retries: int = Field(10, ge=1, le=32_000)
    """Counted attempts before a delivery is parked."""
    error_retry_interval_seconds: Positive = 1.0
    """The first backoff; it doubles with each failure."""
    retry_longest_interval_seconds: Positive = 300.0
    """The longest backoff."""
    breaker_longest_seconds: Positive = 30.0
    """The longest time between two probes of a sink or destination that is down."""
    on_park: Literal["continue", "hold"] = "continue"
    """Whether the key of a parked delivery goes on or waits for a person."""
    stuck_after_seconds: Positive = 300.0
    """A delivery is stuck when it is this long past the time it was first due."""
    max_bytes: int = Field(1_000_000, ge=1, le=100_000_000)
    """The largest message, payload, key and headers together, that may be written for the sink."""
    send_timeout_seconds: Positive = 10.0
    """A send is over after this time, whatever the broker does."""

    @property
    def policy(self) -> Policy:
        """The same as the pure policy code wants it."""
        return Policy(
            max_retries=self.max_retries,
            backoff=Backoff(self.error_retry_interval_seconds, self.retry_longest_interval_seconds),
            breaker=Backoff(min(1.0, self.breaker_longest_seconds), self.breaker_longest_seconds),
            on_park=self.on_park,
        )


class KafkaSettings(_Section):
    """How to reach Kafka and how to write to it."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}KAFKA_", env_file=".env")

    bootstrap_servers: str | None = None
    """`host:port`, several separated by commas. The Kafka sink exists if it is set."""
    client_id: str = "outbox-relay"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_file: Path | None = None
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None
    ssl_key_password: SecretStr | None = None
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    linger_ms: int = Field(0, ge=0, le=1_000)
    max_batch_bytes: int = Field(1_000_000, ge=1_000)
    """The largest record batch; the broker's default limit is 1,048,588."""
    cloudevents: bool = False
    """Add CloudEvents binary-mode headers (`ce_id`, `ce_type`, …)."""


class RedisSettings(_Section):
    """How to reach Redis and how to write to it."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}REDIS_", env_file=".env")

    url: SecretStr | None = None
    """`redis://[user:password@]host:port/db`, or `rediss://` for TLS. The Redis sink exists if it is set."""
    ssl_ca_file: Path | None = None
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None
    stream: bool = False
    """Also append each message to the capped stream `<channel>:log`, before it is published."""
    stream_max_length: int = Field(256, ge=1)
    stream_ttl_seconds: int = Field(300, ge=1)


class Settings(_Section):
    """All settings of one relay or writer."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env")

    database_url: SecretStr | None = None
    """`postgresql://user:password@host:port/database`; SQLAlchemy's `postgresql+asyncpg://` works too."""
    database_schema: Identifier | None = None
    """The schema of the outbox's tables; unset means the connection's first schema (`public`)."""
    database_pooler: Literal["none", "transaction"] = "none"
    """`transaction` behind PgBouncer in transaction mode."""
    sinks: str = ""
    """More sinks: `name=module:Class`, several separated by commas."""

    poll_interval_seconds: Positive = 0.5
    """The longest wait between two looks at the table while idle."""
    poll_shortest_seconds: Positive = 0.001
    """The shortest wait, right after something was found."""
    batch_size: int = Field(2_000, ge=1, le=50_000)
    """Rows a pump fetches at once, at the most."""
    batch_bytes: int = Field(4_000_000, ge=1_000)
    """Payload bytes a pump fetches at once, at the most (but always one row)."""
    pumps: int = Field(4, ge=1, le=64)
    """Concurrent pumps per sink in this relay."""
    lease_seconds: Annotated[float, Field(ge=1)] = 20.0
    """A dead relay's lanes are free after this time."""
    heartbeat_seconds: Positive = 2.0
    """How often a relay renews its leases and looks for its share of the lanes."""
    shutdown_grace_seconds: Positive = 25.0
    """From SIGTERM to exit, at the most."""
    retention: Positive = 7 * 86_400.0
    """Seconds after which delivered rows are pruned."""
    prune_interval_seconds: Positive = 60.0

    http_host: str = "127.0.0.1"
    http_port: int = Field(8081, ge=0, le=65_535)
    """Where `/livez`, `/readyz` and `/metrics` are; 0 takes a free port."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    service_name: str = "outbox-relay"
    environment: str = "development"

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)

    @field_validator("sinks")
    @classmethod
    def _sinks_are_names_and_classes(cls, value: str) -> str:
        for item in filter(None, map(str.strip, value.split(","))):
            name, _, path = item.partition("=")
            module, _, attribute = path.partition(":")
            if not (name.isidentifier() and name.islower() and module and attribute):
                raise ValueError(f"{item!r} is not name=module:Class with a lower-case name")
            if name in ("kafka", "redis"):
                raise ValueError(f"{name!r} is built in; choose another name")
        return value

    @model_validator(mode="after")
    def _leases_outlast_sends(self) -> Self:
        for name in self.sink_names:
            send = self.sink(name).send_timeout_seconds
            if self.lease_seconds < send + 2 * self.heartbeat_seconds:
                raise ValueError(
                    f"OUTBOX_LEASE_SECONDS={self.lease_seconds:g} must be at least the send timeout of "
                    f"{name} ({send:g}) plus two heartbeats ({2 * self.heartbeat_seconds:g}), or a relay "
                    "could still be sending when another owns its lanes"
                )
        return self

    @property
    def sqlalchemy_url(self) -> str:
        """The database for SQLAlchemy's asyncpg dialect; holds the password."""
        return "postgresql+asyncpg://" + self._database_address

    @property
    def asyncpg_dsn(self) -> str:
        """The database for asyncpg; holds the password."""
        return "postgresql://" + self._database_address

    @property
    def _database_address(self) -> str:
        if self.database_url is None:
            raise SettingsError("OUTBOX_DATABASE_URL is not set; example: postgresql://user@localhost/db")
        return self.database_url.get_secret_value().partition("://")[2]

    @property
    def extra_sinks(self) -> dict[str, str]:
        """`OUTBOX_SINKS` as name → `module:Class`."""
        pairs = (item.split("=", 1) for item in map(str.strip, self.sinks.split(",")) if item)
        return {name: path for name, path in pairs}

    @property
    def sink_names(self) -> tuple[str, ...]:
        """The sinks that this relay serves."""
        built_in = (("kafka", self.kafka.bootstrap_servers), ("redis", self.redis.url))
        return tuple(name for name, there in built_in if there) + tuple(self.extra_sinks)

    @property
    def known_sinks(self) -> tuple[str, ...]:
        """The sinks that a writer may name, whether or not it could reach them itself."""
        return ("kafka", "redis", *self.extra_sinks)

    def sink(self, name: str) -> SinkSettings:
        """The policy and limits of one sink: its own where set, else those for all."""
        own = SinkSettings(_env_prefix=f"{PREFIX}{name.upper()}_")
        return SinkSettings(_env_prefix=PREFIX).model_copy(
            update={key: getattr(own, key) for key in own.model_fields_set}
        )

    def sink_options(self, name: str) -> Mapping[str, str]:
        """What `OUTBOX_<NAME>_…` holds, for a sink that `OUTBOX_SINKS` brought."""
        prefix = f"{PREFIX}{name.upper()}_"
        found = {**dotenv_values(".env"), **os.environ}
        return {
            key[len(prefix) :].lower(): value
            for key, value in found.items()
            if key.startswith(prefix) and value is not None
        }


def _explain(error: ValidationError, prefix: str) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = "".join(f"{prefix}{part}".upper() for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {message}" if name else message)
    return "; ".join(lines)
