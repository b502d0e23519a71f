"""Settings: the environment and `.env`, read once, into frozen objects."""

from outbox.settings.environment import Reading, Setting, load, loaded, masked, read
from outbox.settings.model import KafkaSettings, RedisSettings, Settings, SinkSettings

__all__ = [
    "KafkaSettings",
    "Reading",
    "RedisSettings",
    "Setting",
    "Settings",
    "SinkSettings",
    "load",
    "loaded",
    "masked",
    "read",
]
