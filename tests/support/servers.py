"""Which servers a test run uses: those in the environment, else containers, else local ones.

`OUTBOX_TEST_DATABASE_URL` (a superuser's), `OUTBOX_TEST_REDIS_URL` (flushed before each test) and
`OUTBOX_TEST_KAFKA_BOOTSTRAP_SERVERS` name servers that tests may use as they like;
`OUTBOX_TEST_POSTGRES_BINARIES` names a directory of PostgreSQL's programs to start it from. They are not
the `OUTBOX_…` of the relay, so that no run touches a service's own servers by mistake.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from functools import cache
from pathlib import Path
from typing import NoReturn, TypeVar

import docker
import pytest
from docker.errors import DockerException
from testcontainers.community.kafka import KafkaContainer
from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import RedisContainer
from testcontainers.core.container import DockerContainer

from outbox.devstack import Kafka, Postgres, Server, Valkey
from outbox.devstack.postgres import system_binaries, version_of, wheel_binaries
from outbox.errors import DevstackError

GIVEN = {name: value for name, value in os.environ.items() if name.startswith("OUTBOX_TEST_")}
"""What this run was told; read before each test hides it from the processes that it starts."""

POSTGRES_SETTINGS = {
    # Safe when the server crashes, though not when the machine does.
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "max_prepared_transactions": "20",
    # The page tells when each transaction of an upload's way committed.
    "track_commit_timestamp": "on",
}
KAFKA_PROPERTIES = {
    "auto.create.topics.enable": "false",
    # The partitions of a consumer that was killed are soon another's.
    "group.min.session.timeout.ms": "500",
}

MEMORY = Path("/dev/shm")  # noqa: S108 - each server makes a directory of its own there
ROOM_BYTES = 4 * 2**30

S = TypeVar("S", bound=Server)


def memory() -> Path | None:
    """Where files are kept in memory, if there is room for the servers' and their programs may be there.

    Each test clones a database of some 300 files: several times as quick there as on a disk.
    """
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return None
    roomy = found.f_bavail * found.f_frsize >= ROOM_BYTES
    return MEMORY if roomy and not found.f_flag & os.ST_NOEXEC else None


def missing(what: str) -> NoReturn:
    """Skip the test for want of something; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"missing in CI: {what}", pytrace=False)
    pytest.skip(what)


@cache
def docker_answers() -> bool:
    """Whether there is a Docker daemon that could start containers."""
    scheme, _, address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    try:
        if scheme == "unix":
            # Docker's client leaves a socket open where nobody answers.
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(address)
        with closing(docker.from_env(timeout=3)) as client:
            return bool(client.ping())
    except (OSError, DockerException):
        return False


def chosen_binaries() -> Path | None:
    """PostgreSQL's programs that this run was told to test with."""
    chosen = GIVEN.get("OUTBOX_TEST_POSTGRES_BINARIES")
    return Path(chosen).resolve() if chosen else None


def postgres_choices() -> dict[str, Path | None]:
    """The PostgreSQLs to test with, the default first, each with its programs unless it is not local."""
    if "OUTBOX_TEST_DATABASE_URL" in GIVEN:
        return {"given": None}
    chosen = chosen_binaries()
    if chosen is None and docker_answers():
        return {"container": None}
    local = {"wheel": wheel_binaries(), "system": system_binaries()}
    found = local if chosen is None else {"chosen": chosen}
    return {
        f"{where}-{'.'.join(map(str, version_of(binaries)))}": binaries
        for where, binaries in found.items()
        if binaries is not None
    } or {"none": None}


async def postgres(stack: AsyncExitStack, choice: str) -> str:
    """Start the PostgreSQL of that choice, until the stack unwinds; its superuser's URL."""
    if given := GIVEN.get("OUTBOX_TEST_DATABASE_URL"):
        return given
    if choice == "container":
        options = " ".join(f"-c {name}={value}" for name, value in POSTGRES_SETTINGS.items())
        container = PostgresContainer("postgres:18", driver=None).with_command(f"postgres {options}")
        await _contain(stack, container)
        return container.get_connection_url()
    binaries = postgres_choices()[choice]
    return (await start(stack, lambda: Postgres(binaries=binaries, settings=POSTGRES_SETTINGS))).url


async def redis(stack: AsyncExitStack) -> str:
    """Start the run's Redis, until the stack unwinds; its URL."""
    if given := GIVEN.get("OUTBOX_TEST_REDIS_URL"):
        return given
    if docker_answers():
        container = RedisContainer("valkey/valkey:9")
        await _contain(stack, container)
        return f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
    return (await start(stack, Valkey)).url


async def kafka(stack: AsyncExitStack) -> str:
    """Start the run's Kafka, until the stack unwinds; its bootstrap servers."""
    if given := GIVEN.get("OUTBOX_TEST_KAFKA_BOOTSTRAP_SERVERS"):
        return given
    if docker_answers():
        container = KafkaContainer().with_kraft()
        for name, value in KAFKA_PROPERTIES.items():
            container.with_env(f"KAFKA_{name.replace('.', '_').upper()}", value)
        await _contain(stack, container)
        return container.get_bootstrap_server()
    return (await start(stack, lambda: Kafka(properties=KAFKA_PROPERTIES))).url


async def start(stack: AsyncExitStack, make: Callable[[], S]) -> S:
    """Start a local server, until the stack unwinds.

    Servers and containers are entered here and never within an async generator: what one test starts
    for all would end with that test, whose event loop closes the generators that were begun in it.
    """
    try:
        server = make()
        stack.push_async_exit(server)
        await server.start()
    except DevstackError as error:
        missing(str(error))
    return server


async def _contain(stack: AsyncExitStack, container: DockerContainer) -> None:
    stack.push_async_callback(asyncio.to_thread, container.stop)
    await asyncio.to_thread(container.start)
