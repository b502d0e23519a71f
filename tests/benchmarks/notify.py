"""How long a teacher waits: from the upload's event on Kafka to the slot on a WebSocket.

First by a bare script (`bare`), then by ELS, the relay and the gateway, which run as processes, as they ship;
both with the same servers between them. An upload is the event that the File Service publishes; its time is
taken before it is handed to the producer.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import quantiles
from time import monotonic
from typing import Any

import jwt
from confluent_kafka import Producer
from websockets.asyncio.client import ClientConnection, connect

from outbox import migrate
from outbox.demo.child import Child
from outbox.devstack import running_stack
from outbox.huleedu import migrate as huleedu
from outbox.huleedu.events import CONTENT_PROVISIONED, ESSAYS_REGISTERED, TOPICS
from outbox.settings import load
from tests.benchmarks.bare import TOPIC
from tests.support.gateway import claims
from tests.support.huleedu import content, event, registration
from tests.support.kafka import Topics

Say = Callable[[str], None]

RATES = {20: 500, 200: 5_000}
"""Uploads a second, and how many of them."""
WARM_UP = 50
SLOTS = 30
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way from an upload to a WebSocket: where uploads go in, and where teachers listen."""

    name: str
    topic: str
    listen: Callable[[str], connect]
    """Connects a teacher's WebSocket."""


class Teachers:
    """One WebSocket per batch, and when each upload's slot came."""

    def __init__(self) -> None:
        self.came: dict[str, float] = {}
        self._news = asyncio.Event()

    async def listen(self, socket: ClientConnection) -> None:
        async for said in socket:
            now = monotonic()
            notice = json.loads(said)
            if notice["event"] == "essay_slot_assigned":
                self.came.setdefault(notice["data"]["file_upload_id"], now)
                self._news.set()

    async def all_came(self, uploads: int) -> None:
        """Wait until so many came, or nothing more comes."""
        while len(self.came) < uploads:
            self._news.clear()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                return


async def measure(say: Say, *, quick: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def report(server: str, state: str) -> None:
        say(f"{server}: {state}")

    async with running_stack(load(), keep=None, report=report) as stack:
        await asyncio.to_thread(migrate.upgrade, stack.settings)
        await asyncio.to_thread(huleedu.upgrade, stack.settings)
        environment = stack.environment()
        bootstrap = environment["OUTBOX_KAFKA_BOOTSTRAP_SERVERS"]
        for topic in (*TOPICS, TOPIC):
            await Topics(bootstrap).create(topic, partitions=4)
        for running in (bare, as_shipped):
            async with running(environment) as way:
                for rate, whole in RATES.items():
                    uploads = whole // (10 if quick else 1)
                    say(f"{way.name}: {uploads} uploads, {rate} a second")
                    found |= await run(way, bootstrap, rate, WARM_UP + uploads)
    return {
        **ratios(found),
        **found,
        "settings": {"slots": SLOTS, "warm_up": WARM_UP, "cores": os.cpu_count()},
    }


def ratios(found: Mapping[str, Any]) -> dict[str, float]:
    """How much longer our way takes than the bare one."""
    return {
        f"ratio_{rate}_p{percent}": round(
            found[f"outbox_{rate}_p{percent}_ms"] / found[f"bare_{rate}_p{percent}_ms"], 2
        )
        for rate in RATES
        for percent in (50, 99)
    }


async def run(way: Way, bootstrap: str, rate: int, uploads: int) -> dict[str, Any]:
    """Upload at a steady rate, to batches in turn; how long it takes until teachers know."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    batches = [f"{way.name}-{rate}-{number}" for number in range(-(-uploads // SLOTS))]
    for batch in batches:
        said = registration(batch, SLOTS, batch)
        send(producer, ESSAYS_REGISTERED, batch, event(ESSAYS_REGISTERED, said))
    producer.flush(30)
    teachers = Teachers()
    async with AsyncExitStack() as sockets, asyncio.TaskGroup() as group:
        listening = []
        for batch in batches:
            socket = await sockets.enter_async_context(way.listen(batch))
            listening.append(group.create_task(teachers.listen(socket)))
        sent = await upload(producer, way.topic, rate, uploads, batches)
        await teachers.all_came(uploads)
        for task in listening:
            task.cancel()
    return {f"{way.name}_{rate}_{name}": value for name, value in figures(sent, teachers.came).items()}


def figures(sent: Mapping[str, float], came: Mapping[str, float]) -> dict[str, Any]:
    counted = list(sent)[WARM_UP:]
    cuts = quantiles([came[name] - sent[name] for name in counted if name in came], n=100)
    return {
        **{f"p{percent}_ms": round(cuts[percent - 1] * 1_000, 1) for percent in (50, 95, 99)},
        "lost": len(sent) - len(came.keys() & sent.keys()),
        "uploads": len(counted),
    }


async def upload(
    producer: Producer, topic: str, rate: int, uploads: int, batches: list[str]
) -> dict[str, float]:
    """Publish that many; returns when each was."""
    sent: dict[str, float] = {}
    began = monotonic()
    for number in range(uploads):
        await asyncio.sleep(max(0.0, began + number / rate - monotonic()))
        batch = batches[number % len(batches)]
        provisioned = content(number, batch, file_upload_id=f"{batch}-{number}")
        body = event(CONTENT_PROVISIONED, provisioned)
        sent[provisioned.file_upload_id] = monotonic()
        send(producer, topic, batch, body)
        producer.poll(0)
    producer.flush(30)
    return sent


def send(producer: Producer, topic: str, key: str, body: dict[str, Any]) -> None:
    producer.produce(topic, json.dumps(body).encode(), key)


@asynccontextmanager
async def bare(environment: Mapping[str, str]) -> AsyncIterator[Way]:
    """The bare script, running."""
    values = {
        "database_url": environment["OUTBOX_DATABASE_URL"],
        "bootstrap": environment["OUTBOX_KAFKA_BOOTSTRAP_SERVERS"],
        "redis_url": environment["OUTBOX_REDIS_URL"],
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.benchmarks.bare", json.dumps(values)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    try:
        port = json.loads(await process.stdout.readline())["port"]
        yield Way("bare", TOPIC, lambda batch: connect(f"ws://127.0.0.1:{port}/{batch}", proxy=None))
    finally:
        process.stdin.close()
        await process.wait()


@asynccontextmanager
async def as_shipped(environment: Mapping[str, str]) -> AsyncIterator[Way]:
    """ELS, a relay and a gateway, running."""
    secret = secrets.token_urlsafe(32)
    environments = {
        "relay": {"OUTBOX_HTTP_PORT": "0", "OUTBOX_REDIS_STREAM": "true"},
        "els": {
            "ELS_DATABASE_URL": environment["OUTBOX_DATABASE_URL"],
            "ELS_KAFKA_BOOTSTRAP_SERVERS": environment["OUTBOX_KAFKA_BOOTSTRAP_SERVERS"],
            "ELS_PORT": "0",
        },
        "gateway": {
            "GATEWAY_REDIS_URL": environment["OUTBOX_REDIS_URL"],
            "GATEWAY_JWT_SECRET": secret,
            "GATEWAY_PORT": "0",
            "GATEWAY_DRAIN_SECONDS": "0",
        },
    }
    async with AsyncExitStack() as children:
        started = {}
        for name, own in environments.items():
            prefix = "OUTBOX" if name == "relay" else name.upper()
            logs = {f"{prefix}_LOG_FORMAT": "json", f"{prefix}_LOG_LEVEL": "info"}
            command = [name] if name == "relay" else ["huleedu", name]
            ready = "relay.ready" if name == "relay" else "service.started"
            child = started[name] = Child(
                name, command, {**environment, **own, **logs}, ready=ready, hear=lambda *_: None
            )
            children.push_async_callback(child.stop)
            await child.start()
        port = int(started["gateway"].said["service.started"]["port"])

        def listen(batch: str) -> connect:
            token = jwt.encode(claims(batch, exp=2**31), secret, "HS256")
            headers = {"Authorization": f"Bearer {token}"}
            return connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers, proxy=None)

        yield Way("outbox", CONTENT_PROVISIONED, listen)
