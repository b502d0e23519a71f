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
from outbox.errors import DevstackError
from outbox.schema import LANES

_RELAYS = 2
_LOOK_SECONDS = 0.25
_ALWAYS = {"OUTBOX_HTTP_PORT": "0", "OUTBOX_REDIS_STREAM": "true", "OUTBOX_SHUTDOWN_GRACE_SECONDS": "5"}

_COUNTED = {"delivery.retry": "retries", "delivery.parked": "parked", "delivery.expired": "expired"}

QUICK = {
    "OUTBOX_LEASE_SECONDS": "4",
    "OUTBOX_HEARTBEAT_SECONDS": "0.5",
    "OUTBOX_SEND_TIMEOUT_SECONDS": "3",
    "OUTBOX_BREAKER_LONGEST_SECONDS": "2",
}
"""Less patience than in production, so that who watches sees takeover and recovery within seconds."""


class Relay:
    """A relay and its gauges, as they were a moment ago; by sink."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.lanes: dict[str, int] = {}
        self.breakers: dict[str, int] = {}
        self.queue: dict[tuple[str, str], int] = {}
        """Deliveries by sink and state; empty while it cannot read them."""

    @property
    def name(self) -> str:
        """What it is called here."""
        return self.child.name

    async def look(self, client: httpx.AsyncClient) -> None:
        """Read them; without an answer they stay as they are."""
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
    """Those that live. `async with` starts them, and ends them in good order."""

    def __init__(self, environment: Mapping[str, str], ledgers: Mapping[str, Ledger], hear: Hear) -> None:
        self.living: list[Relay] = []
        self.happened: Counter[tuple[str, str]] = Counter()
        """How often what happened, by sink and `retries`, `parked`, `expired` or `breaker openings`."""
        self._environment = {**environment, **_ALWAYS}
        self._ledgers = ledgers
        self._hear = hear
        self._started = 0

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_RELAYS):
                    group.create_task(self.start_one())
        except BaseException as error:
            await self.__aexit__(None, None, None)
            if isinstance(error, BaseExceptionGroup):
                # One of them is enough to tell what to do.
                raise error.exceptions[0] from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leaving, self.living = self.living, []
        await asyncio.gather(*(relay.child.stop() for relay in leaving))

    async def start_one(self) -> Relay:
        """Start one more; gives it once it is ready."""
        self._started += 1
        relay = Relay(
            Child(
                f"relay {self._started}", ["relay"], self._environment, ready="relay.ready", hear=self._take
            )
        )
        await relay.child.start()
        self.living.append(relay)
        return relay

    async def kill_one(self) -> Relay:
        """Kill the one that has lived longest."""
        victim = self.living.pop(0)
        await victim.child.kill()
        return victim

    @property
    def complete(self) -> bool:
        """Whether those that live own all the lanes there are."""
        return all(
            sum(relay.lanes.get(sink, 0) for relay in self.living) == LANES for sink in ("kafka", "redis")
        )

    async def watch(self) -> None:
        """Keep the gauges fresh, for ever. Raises `DevstackError` if a relay ends by itself."""
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
        if what := _COUNTED.get(said.get("event", "")):
            self.happened[said["sink"], what] += 1
        if said.get("event") == "delivery.expired":
            self._ledgers[said["sink"]].expire(UUID(said["message_id"]))
        self._hear(name, said)
