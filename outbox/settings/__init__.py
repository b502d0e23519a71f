"""Settings: the environment and `.env`, read once, into frozen objects.

A service of your own derives its settings from `ServiceSettings`, and is read the same way.
"""

from outbox.settings.address import Address, Host
from outbox.settings.environment import Reading, ServiceSettings, Setting, Variable
from outbox.settings.masking import masked
from outbox.settings.model import Settings, load, loaded, read
from outbox.settings.sinks import KafkaSettings, RedisSettings, SinkSettings
from outbox.settings.values import Delay, Port, PostgresUrl, Seconds, WholeSeconds, Words

__all__ = [
    "Address",
    "Delay",
    "Host",
    "KafkaSettings",
    "Port",
    "PostgresUrl",
    "Reading",
    "RedisSettings",
    "Seconds",
    "ServiceSettings",
    "Setting",
    "Settings",
    "SinkSettings",
    "Variable",
    "WholeSeconds",
    "Words",
    "load",
    "loaded",
    "masked",
    "read",
]
