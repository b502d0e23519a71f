from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from time import monotonic
from uuid import uuid4

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from outbox.errors import SettingsError
from outbox.health import Health, SinkHealth
from outbox.observe import watch
from outbox.settings import Settings
from outbox.web import serving
from tests.support import sql
from tests.support.waiting import BOUNDED, until


class Relay:
    """Says of itself what the test wants."""

    def __init__(self, says: Health) -> None:
        self.says = says

    def health(self) -> Health:
        return self.says


AT_WORK = Health(
    sinks=(SinkHealth(sink="kafka", lanes=frozenset(range(64)), open_breakers=frozenset({"missing"})),)
)
NAMES = {
    "outbox_queue_depth",
    "outbox_events_published",
    "outbox_events_failed",
    "outbox_event_age_seconds",
    "outbox_relay_processing_seconds",
}


@pytest.fixture
def settings(database: str) -> Settings:
    return Settings.model_validate({"database_url": database, "http_port": 0})


@pytest.fixture
def relay() -> Relay:
    return Relay(AT_WORK)


@pytest.fixture
async def client(relay: Relay, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(relay, settings) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_livez(client: httpx.AsyncClient) -> None:
    answer = await client.get("/livez")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_readyz(client: httpx.AsyncClient, relay: Relay) -> None:
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "reasons": [],
        "sinks": [
            {"sink": "kafka", "lanes": 64, "open_breakers": 1, "quiet_seconds": 0.0, "in_vain_seconds": 0.0}
        ],
    }
    relay.says = Health(waiting_for="schema", reason="run: outbox migrate")
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["waiting for schema: run: outbox migrate"]


async def test_metrics(client: httpx.AsyncClient, relay: Relay, database: str) -> None:
    async with sql.connection(database) as observer:
        await observer.execute("INSERT INTO outbox_sinks VALUES ('redis', '1 minute', 'continue')")
        await observer.execute("INSERT INTO outbox_sinks VALUES ('kafka', '1 minute', 'continue')")
        await write(observer, "redis", "redis", "kafka", *(f"nobodys_{number}" for number in range(50)))
        await observer.execute(
            "UPDATE outbox_queue SET parked_at = now(), last_error = 'x' WHERE sink = 'kafka'"
        )
    found = await counted(client, ("kafka", "parked"), 1)
    assert found["outbox_queue_depth", ("redis", "ready")] == 2
    assert found["outbox_queue_depth", ("(unserved)", "ready")] == 50
    assert {labels[0] for name, labels in found if name == "outbox_stuck"} == {"kafka", "redis", "(unserved)"}
    assert found["outbox_queue_depth", ("kafka", "ready")] == 0
    assert found["outbox_stuck", ("redis",)] == 0
    assert 0 < found["outbox_oldest_due_seconds", ("redis",)] < 60
    assert found["outbox_lanes_owned", ("kafka",)] == 64
    assert found["outbox_breakers_open", ("kafka",)] == 1
    assert found["outbox_relay_ready", ()] == 1
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert {name.removesuffix("_total") for name in _families(answer.text)} >= NAMES
    relay.says = Health(waiting_for="postgres", reason="gone")
    found = samples((await client.get("/metrics")).text)
    assert found["outbox_relay_ready", ()] == 0


async def test_a_slow_count_delays_nobody_and_says_how_old_the_numbers_are(
    client: httpx.AsyncClient, database: str
) -> None:
    async with sql.connection(database) as observer:
        await observer.execute("INSERT INTO outbox_sinks VALUES ('kafka', '1 minute', 'continue')")
        await write(observer, "kafka")
        await counted(client, ("kafka", "ready"), 1)
        async with observer.transaction():
            await observer.execute("LOCK outbox_queue IN ACCESS EXCLUSIVE MODE")
            await write(observer, "kafka")
            await until(lambda: waits_for_a_lock(observer))
            began = monotonic()
            assert (await client.get("/readyz")).status_code == 200
            found = samples((await client.get("/metrics")).text)
            assert monotonic() - began < BOUNDED
            assert found["outbox_queue_depth", ("kafka", "ready")] == 1
            age = found["outbox_queue_count_age_seconds", ()]
            assert age > 0
            assert samples((await client.get("/metrics")).text)["outbox_queue_count_age_seconds", ()] > age
    found = await counted(client, ("kafka", "ready"), 2)
    assert found["outbox_queue_count_age_seconds", ()] < age + 60


async def test_a_failed_count_is_told_and_neither_a_stall_nor_blindness(relay: Relay) -> None:
    nowhere = Settings.model_validate(
        {"database_url": "postgresql://nobody@127.0.0.1:1/x", "http_port": 0, "stall_after_seconds": 0.001}
    )
    with watch() as watching:
        async with (
            serving(relay, nowhere) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            await watching.wait_for("count.failed")
            assert (await client.get("/readyz")).status_code == 200
            found = samples((await client.get("/metrics")).text)
    assert found["outbox_lanes_owned", ("kafka",)] == 64


async def counted(
    client: httpx.AsyncClient, place: tuple[str, str], rows: int
) -> dict[tuple[str, tuple[str, ...]], float]:
    """The metrics once the queue was counted with so many rows there."""
    found = {}

    async def are_there() -> bool:
        found.update(samples((await client.get("/metrics")).text))
        return found.get(("outbox_queue_depth", place)) == rows

    await until(are_there)
    return found


async def waits_for_a_lock(observer: asyncpg.Connection) -> bool:
    return bool(
        await observer.fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database()))"
        )
    )


def _families(text: str) -> set[str]:
    return {family.name for family in text_string_to_metric_families(text)}


async def write(observer: asyncpg.Connection, *sinks: str) -> None:
    for sink in sinks:
        await observer.execute(
            "INSERT INTO outbox (message_id, type, sink, destination) VALUES ($1, 't', $2, 'd')",
            uuid4(),
            sink,
        )


async def test_openmetrics_on_request(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_it_tells_its_port_and_leaves_signals_alone(relay: Relay, settings: Settings) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with watch() as watching:
        async with serving(relay, settings) as port:
            event = await watching.wait_for("http.listening")
            assert event.fields == {"host": "127.0.0.1", "port": port}
            assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_port_that_is_taken_says_so(relay: Relay, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"OUTBOX_HTTP_PORT={port}: cannot listen"):
            async with serving(relay, settings.model_copy(update={"http_port": port})):
                pass
