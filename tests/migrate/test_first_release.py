"""The first release works on the newest schema, beside this one, whatever was migrated since."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import asyncpg
import pytest
from redis.asyncio import Redis

from outbox.migrate import upgrade
from outbox.schema import catalog
from outbox.settings import Settings
from tests.relay.traffic import QUICK, assert_all_in_order, emptied
from tests.support.first_release import VERSION, FirstRelease
from tests.support.kafka import Topics
from tests.support.migrations import Scripts
from tests.support.relay_process import RelayProcess
from tests.support.sql import connection
from tests.support.waiting import until
from tests.support.writers import Writers

pytestmark = pytest.mark.slow

CHANNEL = "ws:teacher"


@dataclass(frozen=True, slots=True)
class Place:
    """Where both releases work: one database, one Kafka, one Redis."""

    environment: dict[str, str]
    destinations: Mapping[str, str]
    """By sink."""
    kafka: Topics
    redis: Redis

    @property
    def database(self) -> str:
        return self.environment["OUTBOX_DATABASE_URL"]

    async def told(self, sink: str) -> list[str]:
        """The ids of the messages that arrived at a sink, in their order."""
        if sink == "kafka":
            records = await self.kafka.read(self.destinations[sink])
            return [record.headers["message_id"].decode() for record in records]
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", await self.redis.xrange(f"{CHANNEL}:log"))
        return [fields[b"message_id"].decode() for _, fields in entries]


@pytest.fixture
async def place(empty_database: str, kafka: Topics, redis_url: str, redis: Redis) -> Place:
    environment = {
        **QUICK,
        "OUTBOX_LEASE_SECONDS": "20",
        "OUTBOX_SEND_TIMEOUT_SECONDS": "10",
        "OUTBOX_DATABASE_URL": empty_database,
        "OUTBOX_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "OUTBOX_REDIS_URL": redis_url,
        "OUTBOX_REDIS_STREAM": "true",
        "OUTBOX_REDIS_STREAM_MAX_LENGTH": "1000000",
    }
    topic = await kafka.create(partitions=3)
    return Place(environment, {"kafka": topic, "redis": CHANNEL}, kafka, redis)


@pytest.fixture(scope="module")
def first_release(tmp_path_factory: pytest.TempPathFactory) -> FirstRelease:
    return FirstRelease(tmp_path_factory.mktemp("first_release"))


@pytest.fixture
def migrate(request: pytest.FixtureRequest, scripts: Scripts) -> Callable[[str], Awaitable[None]]:
    """Brings a database to the newest schema, or to one with a migration of each kind."""
    if request.param == "the newest schema":
        return lambda url: asyncio.to_thread(upgrade, Settings(database_url=url))
    scripts.add_one_of_each_kind()
    return scripts.upgrade


async def delivers(relay: RelayProcess, sinks: Mapping[str, str]) -> None:
    """Return once it has delivered something more to each sink."""

    def settled(sink: str) -> int:
        wanted = {"event": "pump.settled", "sink": sink}
        return sum(wanted.items() <= line.items() for line in relay.lines)

    for sink in sinks:
        await relay.event("pump.settled", sink=sink, count=settled(sink) + 1)


async def both_live(db: asyncpg.Connection) -> None:
    """Return once relays of two versions divide the lanes among them, the first release's one of them."""

    async def do() -> bool:
        found: list[Any] = await db.fetch("SELECT DISTINCT version FROM outbox_relays")
        return len(found) == 2 and VERSION in {row["version"] for row in found}

    await until(do)


async def test_its_schema_is_that_of_the_first_migration(
    first_release: FirstRelease, empty_database: str, database: str
) -> None:
    await first_release.migrate(empty_database)
    await asyncio.to_thread(upgrade, Settings(database_url=empty_database))
    async with connection(empty_database) as old, connection(database) as new:
        assert await catalog.catalog(old) == await catalog.catalog(new)


@pytest.mark.parametrize(
    ("migrate", "leaves"),
    [("the newest schema", "the first release"), ("a migration of each kind", "this release")],
    indirect=["migrate"],
)
async def test_both_deliver_while_and_after_the_database_is_migrated(
    place: Place,
    first_release: FirstRelease,
    relay_process: Callable[..., Awaitable[RelayProcess]],
    migrate: Callable[[str], Awaitable[None]],
    leaves: str,
) -> None:
    await first_release.migrate(place.database)
    first = await relay_process(place.environment | first_release.environment)
    async with connection(place.database) as db:
        async with Writers.at_work(place.database, place.destinations) as writers:
            await delivers(first, place.destinations)
            await migrate(place.database)
            await writers.more()
            await delivers(first, place.destinations)
            this = await relay_process(place.environment)
            await both_live(db)
            for relay in (this, first):
                await delivers(relay, place.destinations)
            leaving, staying = (first, this) if leaves == "the first release" else (this, first)
            leaving.terminate()
            assert await leaving.exited() == 0
            await writers.more()
            await delivers(staying, place.destinations)
        await emptied(db)
        for sink in place.destinations:
            await assert_all_in_order(db, sink, await place.told(sink))
