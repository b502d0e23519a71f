"""The Essay Lifecycle Service's settings: `ELS_DATABASE_URL`, `ELS_KAFKA_BOOTSTRAP_SERVERS` and so on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from outbox.huleedu.consume import ConsumerSettings
from outbox.settings import Port, Seconds


class ElsSettings(ConsumerSettings):
    """The settings of ELS, the Essay Lifecycle Service."""

    prefix: ClassVar[str] = "ELS_"

    service_name: str = "essay-lifecycle-service"
    """`service.name` in the logs."""
    kafka_group: str = Field("essay-lifecycle-service", min_length=1, max_length=255)
    """The consumer group; processes in the same one share the partitions, and act on an event once."""
    port: Port = 8083
    """The port of `/livez`, `/readyz` and `/metrics`; 0 takes a free one."""
    notify_within_seconds: Seconds = 60.0
    """A browser is not told of an assignment any more when it is this old."""
