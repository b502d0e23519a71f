"""What the settings of services that consume from Kafka into PostgreSQL have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator

from outbox.huleedu.database import DatabaseSettings
from outbox.settings import KafkaSettings, Seconds


class ConsumerSettings(DatabaseSettings):
    """Where events come from, and how patient their consumer is."""

    kafka_bootstrap_servers: str = Field(min_length=1)
    """`host:port`, several separated by commas."""
    kafka_group: str = Field(min_length=1, max_length=255)
    """The consumer group; processes in the same one share the partitions, and act on an event once."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Whether to use TLS, and whether to log in."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How to log in, with a SASL security protocol."""
    kafka_sasl_username: str | None = None
    """The user to log in as."""
    kafka_sasl_password: SecretStr | None = None
    """The password to log in with."""
    kafka_ssl_ca_file: Path | None = None
    """The authorities to trust, PEM; unset: the system's."""
    kafka_ssl_cert_file: Path | None = None
    """The client's certificate, PEM."""
    kafka_ssl_key_file: Path | None = None
    """The private key of the client's certificate, PEM."""
    kafka_ssl_key_password: SecretStr | None = None
    """The private key's password."""
    kafka_session_timeout_seconds: Seconds = 10.0
    """The partitions of a process that died go to others after this time."""

    retry_longest_seconds: Seconds = 30.0
    """The longest time between two tries of an event that cannot be applied yet."""
    inbox_retention: Seconds = 14 * 86_400.0
    """How long it is remembered which events were applied; longer than Kafka keeps them."""
    parked_retention: Seconds = 90 * 86_400.0
    """How long records are kept that could not be used; whoever they tell of is in them."""
    names_retention: Seconds = 400 * 86_400.0
    """How long the names of files are kept, which may be those of students; a school year and a bit."""

    @property
    def kafka(self) -> KafkaSettings:
        """How to reach Kafka, as the core's clients take it."""
        return KafkaSettings(
            bootstrap_servers=self.kafka_bootstrap_servers,
            client_id=self.service_name,
            security_protocol=self.kafka_security_protocol,
            sasl_mechanism=self.kafka_sasl_mechanism,
            sasl_username=self.kafka_sasl_username,
            sasl_password=self.kafka_sasl_password,
            ssl_ca_file=self.kafka_ssl_ca_file,
            ssl_cert_file=self.kafka_ssl_cert_file,
            ssl_key_file=self.kafka_ssl_key_file,
            ssl_key_password=self.kafka_ssl_key_password,
        )

    @model_validator(mode="after")
    def _can_reach_kafka(self) -> Self:
        try:
            _ = self.kafka
        except ValidationError as error:
            # The core's own rules, told by the names that the settings have here.
            problem = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(problem.replace("OUTBOX_", self.prefix)) from None
        return self
