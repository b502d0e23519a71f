"""What can be set for a sink: what all of them have, and what only Kafka or Redis has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator

from outbox.policy import Backoff, Policy
from outbox.settings.environment import Section
from outbox.settings.values import Seconds, WholeSeconds

_REDIS_SCHEMES = ("redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://", "unix://")


class SinkSettings(Section):
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
    gap_note: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,10000}$")] | None = None
    """What is sent to a destination when a delivery to it expired, was skipped or parked, so that its readers
    know that they miss something: ASCII, which JSON can say everything in. Unset: nothing."""
    stuck_after_seconds: Seconds = 300.0
    """A delivery is stuck when it is this long past the time it was first due."""
    max_bytes: int = Field(1_000_000, ge=1, le=100_000_000)
    """The largest message, payload, key and headers together, that may be written for the sink."""
    send_timeout_seconds: Seconds = 10.0
    """A send is over after this time, whatever the broker does."""

    @property
    def policy(self) -> Policy:
        """The failure policy of the sink, as the code that decides about failures takes it."""
        return Policy(
            max_retries=self.max_retries,
            backoff=Backoff(self.error_retry_interval_seconds, self.retry_longest_interval_seconds),
            breaker=Backoff(min(1.0, self.breaker_longest_seconds), self.breaker_longest_seconds),
        )


class KafkaSettings(Section):
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
    """The password to log in with."""
    ssl_ca_file: Path | None = None
    """The authorities to trust, PEM; unset: the system's."""
    ssl_cert_file: Path | None = None
    """The client's certificate, PEM."""
    ssl_key_file: Path | None = None
    """The private key of the client's certificate, PEM."""
    ssl_key_password: SecretStr | None = None
    """The private key's password."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    """How record batches are compressed."""
    max_batch_bytes: int = Field(1_048_588, ge=1_000, le=100_000_000)
    """The largest record batch, and so the largest record; the default is the broker's own limit."""
    timestamp: Literal["sent", "occurred"] = "sent"
    """A record's time: that of the send, or `occurred`, that of its event (`occurred_at`, else when it was
    written), for who joins streams by time and knows their retention. Where the broker refuses that, it is
    the time of the send all the same."""
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


class RedisSettings(Section):
    """How to reach Redis and how to write to it."""

    url: SecretStr | None = None
    """`redis://[user:password@]host:port/db`, or `rediss://` for TLS; with Sentinels
    `redis+sentinel://[user:password@]host:26379,host:26379/master/db`, or `rediss+sentinel://`. The Redis
    sink exists if it is set."""
    ssl_ca_file: Path | None = None
    """The authorities to trust, PEM; unset: the system's."""
    ssl_cert_file: Path | None = None
    """The client's certificate, PEM."""
    ssl_key_file: Path | None = None
    """The private key of the client's certificate, PEM."""
    stream: bool = False
    """Also append each message to the capped stream `<channel>:log`, before it is published."""
    stream_max_length: int = Field(256, ge=1)
    """About how many entries a channel's stream keeps."""
    stream_ttl_seconds: WholeSeconds = 300
    """A channel's stream is dropped when nothing was appended for this long."""

    @field_validator("url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(_REDIS_SCHEMES):
            raise ValueError(f"must start with {', '.join(_REDIS_SCHEMES)}")
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        _check_certificate("REDIS", self.ssl_cert_file, self.ssl_key_file)
        return self


def _check_certificate(sink: str, cert: Path | None, key: Path | None) -> None:
    if bool(cert) != bool(key):
        raise ValueError(f"OUTBOX_{sink}_SSL_CERT_FILE and OUTBOX_{sink}_SSL_KEY_FILE go together")
