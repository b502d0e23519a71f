from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from outbox.observe import Health, SinkHealth
from outbox.operate import Depth
from outbox.settings import Settings
from outbox.web.readiness import Stall, Watcher
from tests.support import sql

ALL = frozenset(range(64))


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Relay:
    """Says of itself what the test wants."""

    def __init__(self) -> None:
        self.says = Health()

    def health(self) -> Health:
        return self.says

    def serves(
        self, *, quiet: float, lanes: frozenset[int] = ALL, breakers: frozenset[str | None] = frozenset()
    ) -> None:
        kafka = SinkHealth(sink="kafka", lanes=lanes, open_breakers=breakers, quiet_seconds=quiet)
        self.says = Health(sinks=(kafka,))


def depth(lane: int = 0, *, sendable: int, oldest: float = 10_000.0) -> Depth:
    return Depth("kafka", lane, 0, sendable, 0, 0, 0, 0, sendable, oldest)


def kafka(quiet: float, **more: frozenset[int] | frozenset[str | None]) -> SinkHealth:
    return SinkHealth(**{"sink": "kafka", "lanes": ALL, "quiet_seconds": quiet, **more})  # type: ignore[arg-type]


# The clock of a stall


def test_it_counts_from_when_something_was_first_seen() -> None:
    clock = Clock()
    stall = Stall(clock)
    assert stall.seconds(kafka(1_000), [depth(sendable=1)]) == 0
    clock.now += 50
    assert stall.seconds(kafka(1_050), [depth(sendable=1)]) == 50


def test_it_starts_anew_when_something_was_settled() -> None:
    clock = Clock()
    stall = Stall(clock)
    stall.seconds(kafka(0), [depth(sendable=1)])
    clock.now += 50
    assert stall.seconds(kafka(3), [depth(sendable=1)]) == 3


@pytest.mark.parametrize(
    ("health", "depths"),
    [
        (kafka(50), []),
        (kafka(50), [depth(sendable=0)]),
        (kafka(50, lanes=frozenset({1, 2})), [depth(3, sendable=1)]),
        (kafka(50, open_breakers=frozenset({None})), [depth(sendable=1)]),
    ],
    ids=["nothing pending", "nothing can go out", "another relay's lane", "the sink is down"],
)
def test_no_stall(health: SinkHealth, depths: list[Depth]) -> None:
    clock = Clock()
    stall = Stall(clock)
    stall.seconds(kafka(0), [depth(sendable=1)])
    clock.now += 50
    assert stall.seconds(health, depths) == 0
    assert stall.seconds(kafka(50), [depth(sendable=1)]) == 0


def test_nobody_looked_since_the_last_one_was_sent() -> None:
    clock = Clock()
    stall = Stall(clock)
    stall.seconds(kafka(0), [depth(sendable=1)])
    clock.now += 500
    assert stall.seconds(kafka(500), [depth(sendable=1, oldest=0.01)]) == 0.01


# A relay and its queue


@pytest.fixture
async def observer(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as connection:
        yield connection


async def write(observer: asyncpg.Connection, destination: str = "topic") -> None:
    """One that is due for an hour by the database's clock, which the tests cannot move."""
    await observer.execute(
        "INSERT INTO outbox (message_id, type, sink, destination) VALUES ($1, 't', 'kafka', $2)",
        uuid4(),
        destination,
    )
    await observer.execute("UPDATE outbox_queue SET first_due_at = first_due_at - interval '1 hour'")


@pytest.fixture
def settings(database: str) -> Settings:
    return Settings.model_validate({"database_url": database, "stall_after_seconds": 60})


@pytest.mark.parametrize(
    ("health", "says"),
    [
        (Health(waiting_for="postgres", reason="refused"), "waiting for postgres: refused"),
        (Health(waiting_for="schema", reason="run: outbox migrate"), "outbox migrate"),
        (Health(waiting_for="start"), "waiting for start"),
        (Health(stopping=True), "stopping"),
    ],
)
async def test_not_ready_by_what_it_says_itself(health: Health, says: str) -> None:
    relay = Relay()
    relay.says = health
    found = await Watcher(relay, Settings()).look()
    assert says in found.reasons[0]
    assert found.depths is None


async def test_a_stall_makes_it_not_ready_and_work_makes_it_ready_again(
    settings: Settings, observer: asyncpg.Connection
) -> None:
    relay, clock = Relay(), Clock()
    watcher = Watcher(relay, settings, clock)
    relay.serves(quiet=1_000)
    assert not (await watcher.look()).reasons
    await write(observer)
    for _ in range(3):
        clock.now += 30
        found = await watcher.look()
    assert (
        found.reasons == ["kafka stalls: something is due for 60 s and nothing was sent"] or not found.reasons
    )
    clock.now += 30
    (reason,) = (await watcher.look()).reasons
    assert reason == "kafka stalls: something is due for 90 s and nothing was sent"
    relay.serves(quiet=1)
    assert not (await watcher.look()).reasons


async def test_what_goes_to_a_destination_that_is_down_is_no_stall(
    settings: Settings, observer: asyncpg.Connection
) -> None:
    relay, clock = Relay(), Clock()
    watcher = Watcher(relay, settings, clock)
    relay.serves(quiet=1_000, breakers=frozenset({"missing"}))
    await write(observer, "missing")
    for _ in range(5):
        assert not (await watcher.look()).reasons
        clock.now += 30
    await write(observer, "topic")
    for _ in range(4):
        found = await watcher.look()
        clock.now += 30
    assert found.reasons


async def test_a_queue_that_cannot_be_read_matters_after_a_while(settings: Settings) -> None:
    relay, clock = Relay(), Clock()
    address = {"database_url": "postgresql://nobody@127.0.0.1:1/x"}
    watcher = Watcher(
        relay,
        settings.model_copy(update=Settings.model_validate(address).model_dump(include={"database_url"})),
        clock,
    )
    relay.serves(quiet=0)
    found = await watcher.look()
    assert (found.reasons, found.depths) == ([], None)
    clock.now += 61
    (reason,) = (await watcher.look()).reasons
    assert "could not be read for 61 s: Cannot reach the database" in reason


async def test_the_queue_is_not_read_for_every_question(
    settings: Settings, observer: asyncpg.Connection
) -> None:
    relay, clock = Relay(), Clock()
    watcher = Watcher(relay, settings, clock)
    relay.serves(quiet=0)
    assert (await watcher.look()).depths == []
    await write(observer)
    assert (await watcher.look()).depths == []
    clock.now += 2
    assert [each.ready for each in (await watcher.look()).depths or ()] == [1]
