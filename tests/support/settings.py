"""Every class of settings that a process of ours reads, and values for what such a class needs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages

import outbox
from outbox.settings import ServiceSettings, Settings

_NEEDED = {
    "database_url": "postgresql://localhost/huleedu",
    "kafka_bootstrap_servers": "localhost:9092",
    "redis_url": "redis://localhost",
    "gateway_url": "ws://localhost:8080/ws",
    "ras_url": "http://localhost:8082",
    "ras_api_key": "a key that only services know",
    "internal_api_key": "a key that only services know",
    "allowed_service_ids": "web-page",
    "jwt_secret": "a secret of thirty-two bytes or more",
}


def every_settings() -> list[type[ServiceSettings]]:
    """Return the classes of `outbox` that have a prefix, wherever they are; the outbox's own first."""
    for module in walk_packages(outbox.__path__, "outbox."):
        if module.name.endswith(".settings"):
            import_module(module.name)
    ours = {each for each in _derived(ServiceSettings) if each.__module__.startswith("outbox.")}
    return sorted(ours, key=lambda each: (each is not Settings, each.prefix))


def needed(settings: type[ServiceSettings]) -> dict[str, str]:
    """Return variables without which a process would not start."""
    fields = {name: field for name, field in settings.model_fields.items() if name in _NEEDED}
    return {f"{settings.prefix}{name}".upper(): _NEEDED[name] for name in fields}


def _derived(settings: type[ServiceSettings]) -> Iterator[type[ServiceSettings]]:
    for each in settings.__subclasses__():
        if "prefix" in vars(each):
            yield each
        yield from _derived(each)
