"""The Result Aggregator Service's settings: `RAS_DATABASE_URL`, `RAS_INTERNAL_API_KEY` and so on."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, SecretStr, field_validator

from outbox.huleedu.consume import ConsumerSettings
from outbox.settings import Port, Words

_KEY_SHORTEST = 16


class RasSettings(ConsumerSettings):
    """The settings of RAS, the Result Aggregator Service."""

    prefix: ClassVar[str] = "RAS_"

    service_name: str = "result-aggregator-service"
    """`service.name` in the logs."""
    kafka_group: str = Field("result-aggregator-service", min_length=1, max_length=255)
    """The consumer group; processes in the same one share the partitions, and act on an event once."""
    port: Port = 8082
    """The port of the API and of `/livez`, `/readyz` and `/metrics`; 0 takes a free one."""

    internal_api_key: SecretStr
    """What a caller must send as `X-Internal-API-Key`; 16 characters at least."""
    allowed_service_ids: Annotated[Words, Field(min_length=1)]
    """What a caller may call itself in `X-Service-ID`, separated by commas."""

    @field_validator("internal_api_key")
    @classmethod
    def _is_long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < _KEY_SHORTEST:
            raise ValueError(f"must be at least {_KEY_SHORTEST} characters long")
        return value
