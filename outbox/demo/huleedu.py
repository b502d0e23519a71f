"""HuleEdu in the demo: ELS, RAS, the WebSocket gateway and the upload page, each a process of its own."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr

from outbox.demo.child import Child
from outbox.devstack.server import HOST, free_port
from outbox.errors import DevstackError
from outbox.settings import KafkaSettings, RedisSettings, Settings

_LOOK_SECONDS = 0.25
_PAGE_PORT, _GATEWAY_PORT = 8000, 8080


class HuleEdu:
    """The services, with keys made now that nobody else knows; `url` is the page's."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        page, gateway, ras = _port(_PAGE_PORT), _port(_GATEWAY_PORT), free_port()
        self.url = f"http://{HOST}:{page}"
        jwt_secret, api_key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        database = {"DATABASE_URL": _text(settings.database_url)}
        consumer = {**database, **_kafka(settings.kafka), "KAFKA_SESSION_TIMEOUT_SECONDS": "6"}
        services = {
            "els": {**consumer, "PORT": "0"},
            "ras": {
                **consumer,
                "PORT": str(ras),
                "INTERNAL_API_KEY": api_key,
                "ALLOWED_SERVICE_IDS": "web-page",
            },
            "gateway": {
                "PORT": str(gateway),
                "REDIS_URL": _redis(settings.redis),
                "REDIS_PING_SECONDS": "1",
                "REDIS_GRACE_SECONDS": "1",
                "JWT_SECRET": jwt_secret,
                "ALLOWED_ORIGINS": f"{self.url}, http://localhost:{page}",
                "DRAIN_SECONDS": "0",
            },
            "page": {
                **database,
                "PORT": str(page),
                "DEMO": "true",
                "GATEWAY_URL": f"ws://{HOST}:{gateway}/ws",
                "RAS_URL": f"http://{HOST}:{ras}",
                "RAS_API_KEY": api_key,
                "JWT_SECRET": jwt_secret,
            },
        }
        self._children = [_child(name, values, environment) for name, values in services.items()]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the services within the block. Raises `DevstackError` if one does not start."""
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children:
                    group.create_task(child.start())
            yield
        finally:
            await asyncio.gather(*(child.stop() for child in self._children))

    async def watch(self) -> None:
        """Raises `DevstackError` if one of the services ends by itself."""
        while True:
            for child in self._children:
                if not child.running:
                    raise DevstackError(f"{child.name} ended by itself: {child.last_words}")
            await asyncio.sleep(_LOOK_SECONDS)


def _child(name: str, values: Mapping[str, str], environment: Mapping[str, str]) -> Child:
    own = {f"{name.upper()}_{setting}": value for setting, value in values.items()}
    logs = {f"{name.upper()}_LOG_FORMAT": "json", f"{name.upper()}_LOG_LEVEL": "info"}
    environment = {**environment, **own, **logs}
    return Child(name, ["huleedu", name], environment, ready="service.started", hear=_ignore)


def _ignore(_: str, __: Mapping[str, Any]) -> None:
    """Takes what the services log, and tells it nowhere."""


def _kafka(settings: KafkaSettings) -> dict[str, str]:
    found = {
        "BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "SECURITY_PROTOCOL": settings.security_protocol,
        "SASL_MECHANISM": settings.sasl_mechanism,
        "SASL_USERNAME": settings.sasl_username,
        "SASL_PASSWORD": _text(settings.sasl_password),
        "SSL_CA_FILE": settings.ssl_ca_file,
        "SSL_CERT_FILE": settings.ssl_cert_file,
        "SSL_KEY_FILE": settings.ssl_key_file,
        "SSL_KEY_PASSWORD": _text(settings.ssl_key_password),
    }
    return {f"KAFKA_{name}": str(value) for name, value in found.items() if value}


def _redis(settings: RedisSettings) -> str:
    url = _text(settings.url)
    files = {
        "ssl_ca_certs": settings.ssl_ca_file,
        "ssl_certfile": settings.ssl_cert_file,
        "ssl_keyfile": settings.ssl_key_file,
    }
    options = "&".join(f"{name}={file}" for name, file in files.items() if file)
    return f"{url}{'&' if '?' in url else '?'}{options}" if options else url


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _port(wanted: int) -> int:
    """Returns this port, or any that is free where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            return free_port()
        return wanted
