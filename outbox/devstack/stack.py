"""PostgreSQL, Kafka and Redis together: local ones for those that settings do not name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from outbox.devstack.kafka import Kafka
from outbox.devstack.postgres import Postgres
from outbox.devstack.server import Server
from outbox.devstack.valkey import Valkey
from outbox.errors import DevstackError
from outbox.settings import Settings

Report = Callable[[str, str], None]
"""Hears a server's name and what it is at now."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Running servers: `settings` lead to all three, `local` has those that are ours, by name."""

    settings: Settings
    local: Mapping[str, Server]

    def environment(self) -> dict[str, str]:
        """Returns the variables that lead a process of its own to the servers."""
        found = {
            "OUTBOX_DATABASE_URL": _secret(self.settings.database_url),
            "OUTBOX_KAFKA_BOOTSTRAP_SERVERS": self.settings.kafka.bootstrap_servers,
            "OUTBOX_REDIS_URL": _secret(self.settings.redis.url),
        }
        return {name: value for name, value in found.items() if value is not None}


@asynccontextmanager
async def running_stack(settings: Settings, *, keep: Path | None, report: Report) -> AsyncIterator[Stack]:
    """Runs all three servers within the block. Local ones have their data under `keep`, if that is given."""
    async with AsyncExitStack() as exits:
        local = _missing(settings, keep, report)
        for server in local.values():
            exits.push_async_exit(server)
        await _start(local, report)
        yield Stack(_completed(settings, local), local)


def _missing(settings: Settings, keep: Path | None, report: Report) -> dict[str, Server]:
    """Makes a server, not started, for each that settings do not name."""

    def home(name: str) -> Path | None:
        return None if keep is None else keep / name

    local: dict[str, Server] = {}
    if settings.database_url is None:
        # So that one can see when what was written did commit.
        local["postgres"] = Postgres(home("postgres"), settings={"track_commit_timestamp": "on"})
    if settings.kafka.bootstrap_servers is None:
        local["kafka"] = Kafka(home("kafka"), report=lambda text: report("kafka", text))
    if settings.redis.url is None:
        local["redis"] = Valkey(home("redis"))
    return local


async def _start(local: Mapping[str, Server], report: Report) -> None:
    async def start(name: str, server: Server) -> None:
        began = time.monotonic()
        report(name, "starting")
        await server.start()
        report(name, f"ready after {time.monotonic() - began:.1f} s")

    try:
        async with asyncio.TaskGroup() as group:
            for name, server in local.items():
                group.create_task(start(name, server))
    except* DevstackError as errors:
        # One of them is enough to tell what to do.
        raise errors.exceptions[0] from None


def _completed(settings: Settings, local: Mapping[str, Server]) -> Settings:
    """Returns the settings with the local servers' addresses in them."""
    kafka, redis, database_url = settings.kafka, settings.redis, settings.database_url
    if "kafka" in local:
        kafka = kafka.model_copy(update={"bootstrap_servers": local["kafka"].url})
    if "redis" in local:
        redis = redis.model_copy(update={"url": SecretStr(local["redis"].url)})
    if "postgres" in local:
        database_url = SecretStr(local["postgres"].url)
    return settings.model_copy(update={"kafka": kafka, "redis": redis, "database_url": database_url})


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
