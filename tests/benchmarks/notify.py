"""How long a teacher waits: from the upload's event on Kafka to the slot on a WebSocket.

ELS, the relay and the gateway run as processes, as they ship, with real servers between them. An upload is
the event that the File Service publishes; its time is taken before it is handed to the producer.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
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
from tests.support.gateway import claims
from tests.support.huleedu import content, event, registration
from tests.support.kafka import Topics

Say = Callable[[str], None]

UPLOADS = 500
WARM_UP = 50
SLOTS = 30
RATE = 20
"""Uploads a second."""
PATIENCE_SECONDS = 30.0


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
    uploads = WARM_UP + UPLOADS // (10 if quick else 1)
    secret = secrets.token_urlsafe(32)
    async with system(say, secret) as (bootstrap, port):
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        batches = -(-uploads // SLOTS)
        for batch in range(batches):
            said = registration(f"batch-{batch}", SLOTS, f"teacher-{batch}")
            send(producer, ESSAYS_REGISTERED, f"batch-{batch}", event(ESSAYS_REGISTERED, said))
        producer.flush(30)
        teachers = Teachers()
        async with AsyncExitStack() as sockets, asyncio.TaskGroup() as group:
            listening = []
            for batch in range(batches):
                token = jwt.encode(claims(f"teacher-{batch}", exp=2**31), secret, "HS256")
                socket = await sockets.enter_async_context(
                    connect(
                        f"ws://127.0.0.1:{port}/ws",
                        additional_headers={"Authorization": f"Bearer {token}"},
                        proxy=None,
                    )
                )
                listening.append(group.create_task(teachers.listen(socket)))
            say(f"{uploads} uploads, {RATE} a second")
            sent = await upload(producer, uploads, batches)
            await teachers.all_came(uploads)
            for task in listening:
                task.cancel()
    return figures(sent, teachers.came)


def figures(sent: dict[str, float], came: dict[str, float]) -> dict[str, Any]:
    counted = list(sent)[WARM_UP:]
    waits = [came[name] - sent[name] for name in counted if name in came]
    cuts = quantiles(waits, n=100)
    return {
        **{f"p{percent}_ms": round(cuts[percent - 1] * 1_000, 1) for percent in (50, 95, 99)},
        "lost": len(sent) - len(came.keys() & sent.keys()),
        "uploads": len(counted),
        "settings": {"rate": RATE, "slots": SLOTS, "warm_up": WARM_UP, "cores": os.cpu_count()},
    }


async def upload(producer: Producer, uploads: int, batches: int) -> dict[str, float]:
    """Publish that many at a steady rate, to the batches in turn; returns when each was."""
    sent: dict[str, float] = {}
    began = monotonic()
    for number in range(uploads):
        await asyncio.sleep(max(0.0, began + number / RATE - monotonic()))
        batch = f"batch-{number % batches}"
        provisioned = content(number, batch)
        body = event(CONTENT_PROVISIONED, provisioned)
        sent[provisioned.file_upload_id] = monotonic()
        send(producer, CONTENT_PROVISIONED, batch, body)
        producer.poll(0)
    producer.flush(30)
    return sent


def send(producer: Producer, topic: str, key: str, body: dict[str, Any]) -> None:
    producer.produce(topic, json.dumps(body).encode(), key)


@asynccontextmanager
async def system(say: Say, secret: str) -> AsyncIterator[tuple[str, int]]:
    """All of it, running: Kafka's address and the gateway's port."""

    def report(server: str, state: str) -> None:
        say(f"{server}: {state}")

    def ignore(*_: Any) -> None:
        """What they log is not looked at."""

    async with running_stack(load(), keep=None, report=report) as stack, AsyncExitStack() as children:
        await asyncio.to_thread(migrate.upgrade, stack.settings)
        await asyncio.to_thread(huleedu.upgrade, stack.settings)
        found = stack.environment()
        bootstrap = found["OUTBOX_KAFKA_BOOTSTRAP_SERVERS"]
        topics = Topics(bootstrap)
        for topic in TOPICS:
            await topics.create(topic, partitions=4)
        environments = {
            "relay": {"OUTBOX_HTTP_PORT": "0", "OUTBOX_REDIS_STREAM": "true"},
            "els": {
                "ELS_DATABASE_URL": found["OUTBOX_DATABASE_URL"],
                "ELS_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
                "ELS_PORT": "0",
            },
            "gateway": {
                "GATEWAY_REDIS_URL": found["OUTBOX_REDIS_URL"],
                "GATEWAY_JWT_SECRET": secret,
                "GATEWAY_PORT": "0",
                "GATEWAY_DRAIN_SECONDS": "0",
            },
        }
        started = {}
        for name, own in environments.items():
            prefix = "OUTBOX" if name == "relay" else name.upper()
            logs = {f"{prefix}_LOG_FORMAT": "json", f"{prefix}_LOG_LEVEL": "info"}
            command = [name] if name == "relay" else ["huleedu", name]
            ready = "relay.ready" if name == "relay" else "service.started"
            child = Child(name, command, {**found, **own, **logs}, ready=ready, hear=ignore)
            children.push_async_callback(child.stop)
            await child.start()
            started[name] = child
            say(f"{name}: ready")
        yield bootstrap, int(started["gateway"].said["service.started"]["port"])
