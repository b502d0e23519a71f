"""The relays of the demo: two processes, so that one can be killed, and what their `/metrics` tell."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from prometheus_client.parser import text_string_to_metric_families

from outbox.demo.child import Child, Hear
from outbox.demo.ledger import Ledger
from outbox.errors import DevstackError, OutboxError
from outbox.operate import connect, status
from outbox.schema import LANES
from outbox.settings import Settings

_RELAYS = 2
_LOOK_SECONDS = 0.25
_ALWAYS = {
    "OUTBOX_LOG_FORMAT": "json",
    "OUTBOX_LOG_LEVEL": "info",
    "OUTBOX_HTTP_PORT": "0",
    "OUTBOX_SHUTDOWN_GRACE_SECONDS": "5",
    "OUTBOX_REDIS_STREAM": "true",
    "OUTBOX_REDIS_GAP_NOTE": '{"event":"resync_required"}',
    # What comes all at once after an outage must still be there when the listener reads it.
    "OUTBOX_REDIS_STREAM_MAX_LENGTH": "10000",
}
_COUNTED = {"delivery.retry": "retries", "delivery.parked": "parked", "delivery.expired": "expired"}

QUICK = {
    "OUTBOX_LEASE_SECONDS": "4",
    "OUTBOX_HEARTBEAT_SECONDS": "0.5",
    "OUTBOX_SEND_TIMEOUT_SECONDS": "3",
    "OUTBOX_BREAKER_LONGEST_SECONDS": "2",
}
"""Less patience than in production, so that who watches sees takeover and recovery within seconds."""


class RelayChild:
    """A relay and its gauges by sink, as they were a moment ago."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.lanes: dict[str, int] = {}
        self.breakers: dict[str, int] = {}
        self.queue: dict[tuple[str, str], int] = {}
        """Deliveries by sink and state; empty while it cannot read them."""

    @property
    def name(self) -> str:
        """What the relay is called here."""
        return self.child.name

    @property
    def id(self) -> UUID:
        """What the relay is called in the database."""
        return UUID(self.child.said["relay.started"]["id"])

    async def look(self, client: httpx.AsyncClient) -> None:
        """Reads the relay's gauges; without an answer they stay as they are."""
        port = self.child.said["http.listening"]["port"]
        with suppress(httpx.HTTPError):
            answer = await client.get(f"http://127.0.0.1:{port}/metrics")
            self._read(answer.text)

    def _read(self, text: str) -> None:
        samples = {family.name: family.samples for family in text_string_to_metric_families(text)}
        self.lanes = {each.labels["sink"]: int(each.value) for each in samples["outbox_lanes_owned"]}
        self.breakers = {each.labels["sink"]: int(each.value) for each in samples["outbox_breakers_open"]}
        self.queue = {
            (each.labels["sink"], each.labels["state"]): int(each.value)
            for each in samples["outbox_queue_depth"]
        }


class Relays:
    """The relays that live. `async with` starts them, and ends them in good order."""

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], ledgers: Mapping[str, Ledger], hear: Hear
    ) -> None:
        self.living: list[RelayChild] = []
        self.happened: Counter[tuple[str, str]] = Counter()
        """How often what happened, by sink and `retries`, `parked`, `expired` or `breaker openings`."""
        self._settings = settings
        self._environment = {**environment, **_ALWAYS}
        self._ledgers = ledgers
        self._hear = hear
        self._started = 0

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_RELAYS):
                    group.create_task(self.start_one())
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leaving, self.living = self.living, []
        await asyncio.gather(*(relay.child.stop() for relay in leaving))

    async def start_one(self) -> RelayChild:
        """Starts one more relay; returns it once it is ready."""
        self._started += 1
        relay = RelayChild(
            Child(
                f"relay {self._started}", ["relay"], self._environment, ready="relay.ready", hear=self._take
            )
        )
        await relay.child.start()
        self.living.append(relay)
        return relay

    async def kill_one(self) -> RelayChild:
        """Kills the relay that has lived longest, and returns it."""
        victim = self.living.pop(0)
        await victim.child.kill()
        return victim

    async def replaced(self, victim: RelayChild) -> bool:
        """Returns True if every lane has an owner again, other than the relay that was killed."""
        try:
            async with connect(self._settings) as connection:
                found = await status(connection)
        except OutboxError:
            return False
        lanes: Counter[str] = Counter()
        for relay in found.relays:
            if relay.relay_id != victim.id:
                lanes.update(relay.lanes)
        return all(lanes[sink] == LANES for sink in self._ledgers)

    async def watch(self) -> None:
        """Keeps the gauges fresh, for ever. Raises `DevstackError` if a relay ends by itself."""
        async with httpx.AsyncClient(timeout=2.0) as client:
            while True:
                for relay in tuple(self.living):
                    before = relay.breakers
                    await relay.look(client)
                    for sink, breakers in relay.breakers.items():
                        self.happened[sink, "breaker openings"] += max(0, breakers - before.get(sink, 0))
                    if relay in self.living and not relay.child.running:
                        raise DevstackError(f"{relay.name} ended by itself: {relay.child.last_words}")
                await asyncio.sleep(_LOOK_SECONDS)

    def _take(self, name: str, said: Mapping[str, Any]) -> None:
        event, sink = said.get("event", ""), said.get("sink", "")
        if event in _COUNTED:
            self.happened[sink, _COUNTED[event]] += 1
        if event == "delivery.expired" and sink in self._ledgers:
            self._ledgers[sink].expire(UUID(said["message_id"]))
        self._hear(name, said)
