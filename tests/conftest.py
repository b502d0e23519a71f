"""The servers that tests run on. What is shared lives for the whole run; `own_…` may be broken."""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from outbox.devstack import Kafka, Postgres, Server, Valkey
from outbox.devstack.postgres import wheel_binaries
from tests.support import programs, servers
from tests.support.certificates import make_certificates
from tests.support.kafka import Topics
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Cluster
from tests.support.relay_process import RelayProcess
from tests.support.secured_kafka import SecuredKafka

POSTGRES = list(servers.postgres_choices())

Server.temporary_folder = servers.memory()
# A broker that lives for one test is not worth a better compiler.
Kafka.jvm = (*Kafka.jvm, "-XX:TieredStopAtLevel=1")


def pytest_xdist_auto_num_workers() -> int:
    """With `-n auto`: two, each on servers of its own, which a Redis that is given cannot be."""
    return 1 if "OUTBOX_TEST_REDIS_URL" in servers.GIVEN else 2


session_fixture = pytest_asyncio.fixture(scope="session", loop_scope="session")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OUTBOX_"):
            monkeypatch.delenv(name)


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the machine allows: a thousand connections have both ends in here."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# Postgres


@session_fixture
async def _clusters() -> AsyncIterator[Callable[[str], Awaitable[Cluster]]]:
    async with AsyncExitStack() as stack:
        clusters: dict[str, Cluster] = {}

        async def cluster(choice: str) -> Cluster:
            if choice not in clusters:
                clusters[choice] = Cluster(await servers.postgres(stack, choice))
                stack.push_async_callback(clusters[choice].close)
            return clusters[choice]

        yield cluster


@pytest.fixture
async def postgres(_clusters: Callable[[str], Awaitable[Cluster]]) -> Cluster:
    """The run's PostgreSQL."""
    return await _clusters(POSTGRES[0])


@pytest.fixture
async def database(postgres: Cluster) -> AsyncIterator[str]:
    """The URL of a migrated database of the test's own."""
    async with postgres.database(template=await postgres.template()) as url:
        yield url


@pytest.fixture
async def empty_database(postgres: Cluster) -> AsyncIterator[str]:
    """The URL of an empty database of the test's own."""
    async with postgres.database() as url:
        yield url


@pytest.fixture(params=POSTGRES)
async def every_postgres(
    request: pytest.FixtureRequest, _clusters: Callable[[str], Awaitable[Cluster]]
) -> Cluster:
    """Each PostgreSQL there is, the newest wheel's and the system's, one after the other."""
    return await _clusters(request.param)


@pytest.fixture
async def own_postgres() -> AsyncIterator[Postgres]:
    """A PostgreSQL server of the test's own."""
    binaries = servers.chosen_binaries() or wheel_binaries()
    async with AsyncExitStack() as stack:
        yield await servers.start(
            stack, lambda: Postgres(binaries=binaries, settings=servers.POSTGRES_SETTINGS)
        )


@pytest.fixture
async def own_database(own_postgres: Postgres) -> str:
    """The URL of a migrated database in a PostgreSQL of the test's own."""
    cluster = Cluster(own_postgres.url)
    return cluster.url_of(await cluster.template())


@pytest.fixture
async def pgbouncer(database: str) -> AsyncIterator[PgBouncer]:
    """PgBouncer in transaction mode before `database`; its `url` leads there."""
    program = programs.find("pgbouncer")
    if program is None:
        servers.missing("pgbouncer is not installed")
    async with AsyncExitStack() as stack:
        yield await servers.start(stack, lambda: PgBouncer(program, database))


# Redis


@session_fixture
async def _redis_url() -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        yield await servers.redis(stack)


@pytest.fixture
async def redis_url(_redis_url: str) -> str:
    """The URL of the run's Redis, emptied."""
    async with Redis.from_url(_redis_url) as client:
        await client.flushall()
    return _redis_url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the run's Redis, emptied."""
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def own_redis() -> AsyncIterator[Valkey]:
    """A Redis-compatible server of the test's own."""
    async with AsyncExitStack() as stack:
        yield await servers.start(stack, Valkey)


# Kafka


@session_fixture
async def _kafka_bootstrap() -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        yield await servers.kafka(stack)


@pytest.fixture
def kafka(_kafka_bootstrap: str) -> Topics:
    """The run's Kafka: `bootstrap`, and topics to make and read."""
    return Topics(_kafka_bootstrap)


@pytest.fixture
async def own_kafka() -> AsyncIterator[Kafka]:
    """A broker of the test's own."""
    async with AsyncExitStack() as stack:
        yield await servers.start(stack, lambda: Kafka(properties=servers.KAFKA_PROPERTIES))


@pytest.fixture
async def second_broker(own_kafka: Kafka) -> AsyncIterator[Kafka]:
    """A second broker, node 2, in the cluster of `own_kafka`: the one that may go away."""
    async with AsyncExitStack() as stack:
        yield await servers.start(
            stack, lambda: Kafka(controller=own_kafka, node=2, properties=servers.KAFKA_PROPERTIES)
        )


@session_fixture
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredKafka]:
    """A broker that asks who one is; its user is called `relay`."""
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    async with AsyncExitStack() as stack:
        broker = await servers.start(stack, lambda: SecuredKafka(certificates))
        await broker.make_user()
        yield broker


# The relay


@pytest.fixture
async def relay_process(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[RelayProcess]]]:
    """Starts relay processes: `await relay_process({"OUTBOX_…": …})`, see `RelayProcess.start`."""
    started: list[RelayProcess] = []

    async def start(settings: dict[str, str], *, kill_at: str | None = None) -> RelayProcess:
        started.append(await RelayProcess.start(settings, tmp_path, kill_at))
        return started[-1]

    yield start
    for relay in started:
        relay.kill()
        await relay.exited()
