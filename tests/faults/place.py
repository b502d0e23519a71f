"""Where a campaign happens: a database, a broker, a Redis, and the relays between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from outbox import migrate
from outbox.devstack import running_stack
from outbox.devstack.server import Server
from outbox.settings import load
from tests.support.kafka import Topics
from tests.support.relay_process import RelayProcess

TOPICS = ("campaign.one", "campaign.two", "campaign.three")
CHANNELS = tuple(f"campaign:{number}" for number in range(8))

_RELAY = {
    "OUTBOX_REDIS_STREAM": "true",
    "OUTBOX_REDIS_STREAM_MAX_LENGTH": "100000000",
    "OUTBOX_REDIS_STREAM_TTL_SECONDS": "604800",
    "OUTBOX_LOG_LEVEL": "info",
    "OUTBOX_LEASE_SECONDS": "4",
    "OUTBOX_HEARTBEAT_SECONDS": "0.5",
    "OUTBOX_SEND_TIMEOUT_SECONDS": "1.5",
    "OUTBOX_POLL_INTERVAL_SECONDS": "0.05",
    "OUTBOX_ERROR_RETRY_INTERVAL_SECONDS": "0.1",
    "OUTBOX_RETRY_LONGEST_INTERVAL_SECONDS": "2",
    "OUTBOX_BREAKER_LONGEST_SECONDS": "2",
    "OUTBOX_PRUNE_INTERVAL_SECONDS": "1",
}


@dataclass
class Place:
    """The servers, and the relays that live at the moment."""

    servers: Mapping[str, Server]
    environment: Mapping[str, str]
    topics: Topics
    folder: Path
    relays: list[RelayProcess] = field(default_factory=list)
    beside: Mapping[str, str] = field(default_factory=dict)
    """What lets a relay of the first release run instead; empty: none does."""
    touched: set[int] = field(default_factory=set)
    """The ids of rows that somebody's hand was about, of which nothing is expected."""

    @property
    def database(self) -> str:
        """The address of the database."""
        return self.environment["OUTBOX_DATABASE_URL"]

    async def start_relay(self, *, of_first_release: bool = False) -> None:
        """One more."""
        beside = self.beside if of_first_release else {}
        self.relays.append(await RelayProcess.start({**self.environment, **beside}, self.folder))

    async def stop_relays(self) -> None:
        """All of them, in good order; raises where one does not end so."""
        for relay in self.relays:
            relay.resume()
            await relay.event("relay.started")  # Before that it has no handler for a signal.
            relay.terminate()
        codes = [await relay.exited() for relay in self.relays]
        if any(codes):
            raise RuntimeError(f"relays ended with {codes}: {self.relays[0].last_words()}")
        self.relays.clear()


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    """Servers of our own, migrated, with the topics, and no relay yet."""
    async with running_stack(
        load({}, folder / ".env"), keep=folder, report=lambda _what, _text: None
    ) as stack:
        environment = stack.environment() | _RELAY
        await asyncio.to_thread(migrate.upgrade, stack.settings)
        topics = Topics(environment["OUTBOX_KAFKA_BOOTSTRAP_SERVERS"])
        for topic in TOPICS:
            await topics.create(topic, partitions=3)
        found = Place(stack.local, environment, topics, folder)
        try:
            yield found
        finally:
            for relay in found.relays:
                relay.kill()
                await relay.exited()
