"""What can be set: plain frozen models with every default.

In code, `Settings(…)` is what it is given and defaults, whatever the environment says; a wrong
value raises pydantic's `ValidationError`. Durations are seconds; text may have a unit (`500ms`,
`30s`, `15m`, `12h`, `7d`, `2w`) or be ISO 8601 (`P7D`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from outbox.errors import SettingsError
from outbox.policy import Backoff, Policy

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"\s*(?P<number>\d+(\.\d+)?)\s*(?P<unit>ms|s|m|h|d|w)?\s*")
_ISO_DURATION = re.compile(r"P(?=.)((?P<d>\d+)D)?(T(?=.)((?P<h>\d+)H)?((?P<m>\d+)M)?((?P<s>\d+(\.\d+)?)S)?)?")


def _seconds(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, str):
        return value
    if match := _DURATION.fullmatch(value):
        return float(match["number"]) * _UNITS[match["unit"] or "s"]
    if match := _ISO_DURATION.fullmatch(value):
        return sum(float(number or 0) * _UNITS[unit] for unit, number in match.groupdict().items())
    raise ValueError("must be seconds, or a number with a unit: 500ms, 30s, 15m, 12h, 7d, 2w")


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SinkSettings(_Section):
    """What every sink has: its failure policy and its limits."""

    max_retries: int = Field(10, ge=1, le=32_000)
    """Counted attempts before a delivery is parked."""
    error_retry_interval_seconds: Seconds = 1.0
    """The first backoff; it doubles with each failure."""
    retry_longest_interval_seconds: Seconds = 300.0
    """The longest backoff."""
    breaker_longest_seconds: Seconds = 30.0
    """The longest time between two probes of a sink or destination that is down."""
    on_park: Literal["continue", "hold"] = "continue"
    """Whether the key of a parked delivery goes on or waits for a person."""
    stuck_after_seconds: Seconds = 300.0
    """A delivery is stuck when it is this long past the time it was first due."""
    max_bytes: int = Field(1_000_000, ge=1, le=100_000_000)
    """The largest message, payload, key and headers together, that may be written for the sink."""
    send_timeout_seconds: Seconds = 10.0
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

    bootstrap_servers: str | None = None
    """`host:port`, several separated by commas. The Kafka sink exists if it is set."""
    client_id: str = "outbox-relay"
    """What the broker's logs and quotas call this relay."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Whether to use TLS, and whether to log in."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How to log in, with a SASL security protocol."""
    sasl_username: str | None = None
    """The user to log in as."""
    sasl_password: SecretStr | None = None
    """Its password."""
    ssl_ca_file: Path | None = None
    """The authorities to trust, PEM; unset: the system's."""
    ssl_cert_file: Path | None = None
    """The client's certificate, PEM."""
    ssl_key_file: Path | None = None
    """Its private key, PEM."""
    ssl_key_password: SecretStr | None = None
    """The private key's password."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    """How record batches are compressed."""
    max_batch_bytes: int = Field(1_048_588, ge=1_000, le=100_000_000)
    """The largest record batch, and so the largest record; the default is the broker's own limit."""
    cloudevents: bool = False
    """Add CloudEvents binary-mode headers (`ce_id`, `ce_type`, …)."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError(
                f"OUTBOX_KAFKA_SECURITY_PROTOCOL={self.security_protocol} needs "
                "OUTBOX_KAFKA_SASL_USERNAME and OUTBOX_KAFKA_SASL_PASSWORD"
            )
        _check_certificate("KAFKA", self.ssl_cert_file, self.ssl_key_file)
        return self


class RedisSettings(_Section):
    """How to reach Redis and how to write to it."""

    url: SecretStr | None = None
    """`redis://[user:password@]host:port/db`, or `rediss://` for TLS. The Redis sink exists if it is set."""
    ssl_ca_file: Path | None = None
    """The authorities to trust, PEM; unset: the system's."""
    ssl_cert_file: Path | None = None
    """The client's certificate, PEM."""
    ssl_key_file: Path | None = None
    """Its private key, PEM."""
    stream: bool = False
    """Also append each message to the capped stream `<channel>:log`, before it is published."""
    stream_max_length: int = Field(256, ge=1)
    """About how many entries a channel's stream keeps."""
    stream_ttl_seconds: int = Field(300, ge=1)
    """A channel's stream is dropped when nothing was appended for this long."""

    @field_validator("url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        _check_certificate("REDIS", self.ssl_cert_file, self.ssl_key_file)
        return self


class Settings(_Section):
    """All settings of one relay or writer."""

    database_url: SecretStr | None = None
    """`postgresql://user:password@host:port/database`; SQLAlchemy's `postgresql+asyncpg://` works too."""
    database_schema: Identifier | None = None
    """The schema of the outbox's tables; unset means the connection's first schema (`public`)."""
    database_pooler: Literal["none", "transaction"] = "none"
    """`transaction` behind PgBouncer in transaction mode."""
    sinks: str = ""
    """More sinks: `name=module:Class`, several separated by commas."""

    poll_interval_seconds: Seconds = 0.1
    """The longest wait between two looks at the table while idle."""
    poll_shortest_seconds: Seconds = 0.001
    """The shortest wait, right after something was found."""
    batch_size: int = Field(2_000, ge=1, le=50_000)
    """Rows a pump fetches at once, at the most."""
    batch_bytes: int = Field(4_000_000, ge=1_000)
    """Payload bytes a pump fetches at once, at the most (but always one row)."""
    pumps: int = Field(4, ge=1, le=64)
    """Concurrent pumps per sink in this relay."""
    lease_seconds: Annotated[Seconds, Field(ge=1)] = 20.0
    """A dead relay's lanes are free after this time."""
    heartbeat_seconds: Seconds = 2.0
    """How often a relay renews its leases and looks for its share of the lanes."""
    shutdown_grace_seconds: Seconds = 25.0
    """From SIGTERM to exit, at the most."""
    retention: Seconds = 7 * 86_400.0
    """How long delivered rows are kept before they are pruned: seconds, or `7d`, `12h`, `P7D`."""
    prune_interval_seconds: Seconds = 60.0
    """The time between two rounds of pruning."""

    http_host: str = "127.0.0.1"
    """The address of `/livez`, `/readyz` and `/metrics`; `0.0.0.0` lets others reach them, a kubelet say."""
    http_port: int = Field(8081, ge=0, le=65_535)
    """Their port; 0 takes a free one, told by the event `http.listening`."""
    stall_after_seconds: Seconds = 60.0
    """Not ready when something has been due and nothing was sent for this long, for no known reason."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """How log lines look; `auto` is `console` on a terminal, else `json`."""
    service_name: str = "outbox-relay"
    """`service.name` in the logs."""
    environment: str = "development"
    """`deployment.environment` in the logs."""

    every_sink: SinkSettings = Field(default_factory=SinkSettings)
    """What sinks have where they have nothing of their own."""
    own: Mapping[str, SinkSettings] = Field(default_factory=dict)
    """What a sink has of its own, by its name; only what is set in it counts."""
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    options: Mapping[str, Mapping[str, str]] = Field(default_factory=dict, repr=False)
    """The options of each sink that `sinks` brings."""

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.match(r"postgres(ql)?(\+\w+)?://", value.get_secret_value()):
            raise ValueError("must look like postgresql://user:password@host:port/database")
        return value

    @field_validator("sinks")
    @classmethod
    def _are_names_and_classes(cls, value: str) -> str:
        for item in filter(None, map(str.strip, value.split(","))):
            name, _, path = item.partition("=")
            module, _, attribute = path.partition(":")
            if not (re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) and module and attribute):
                raise ValueError(f"{item!r} is not name=module:Class with a lower-case name")
            if any(f"{field}_".startswith(f"{name}_") for field in cls.model_fields):
                raise ValueError(f"{name!r} is taken: OUTBOX_{name.upper()}_… are settings already")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.poll_shortest_seconds > self.poll_interval_seconds:
            raise ValueError(
                "OUTBOX_POLL_SHORTEST_SECONDS must not be more than OUTBOX_POLL_INTERVAL_SECONDS"
            )
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
        return "postgresql+asyncpg://" + re.sub(r"(?<=[?&])sslmode=", "ssl=", self._database_address)

    @property
    def asyncpg_dsn(self) -> str:
        """The database for asyncpg; holds the password."""
        return "postgresql://" + re.sub(r"(?<=[?&])ssl=", "sslmode=", self._database_address)

    @property
    def _database_address(self) -> str:
        if self.database_url is None:
            raise SettingsError(
                "OUTBOX_DATABASE_URL is not set; example: postgresql://user:password@localhost:5432/database"
            )
        return self.database_url.get_secret_value().partition("://")[2]

    @property
    def extra_sinks(self) -> dict[str, str]:
        """`OUTBOX_SINKS` as name → `module:Class`."""
        items = (item.partition("=") for item in map(str.strip, self.sinks.split(",")) if item)
        return {name: path for name, _, path in items}

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
        own = self.own.get(name, SinkSettings())
        return self.every_sink.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})

    def sink_options(self, name: str) -> Mapping[str, str]:
        """What `OUTBOX_<NAME>_…` holds, for a sink that `OUTBOX_SINKS` brought."""
        return self.options.get(name, {})


def _check_certificate(sink: str, cert: Path | None, key: Path | None) -> None:
    if bool(cert) != bool(key):
        raise ValueError(f"OUTBOX_{sink}_SSL_CERT_FILE and OUTBOX_{sink}_SSL_KEY_FILE go together")
