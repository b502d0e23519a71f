"""Pages in Node, each with the built client: what they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from outbox import new_id
from tests.support.node import NODE
from tests.support.waiting import PATIENCE

TALK = Path(__file__).with_name("talk.mjs")
QUICK = {"firstRetry": 50, "longestRetry": 200, "settle": 100, "pollAfter": 300, "pollEvery": 100}
"""Waits of a page that has no time."""


class Page:
    """What one page was told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def all(self, what: str) -> list[Any]:
        """Every value of one kind, in order."""
        return [line[what] for line in self.told if what in line]

    @property
    def uploads(self) -> list[str]:
        """The uploads of which a slot was told, in order."""
        return [slot["file_upload_id"] for slot in self.all("slot")]

    @property
    def state(self) -> str | None:
        """The state that was told last."""
        return self.all("status")[-1]["state"] if self.all("status") else None


class Pages:
    """Pages in a process of their own, by name."""

    def __init__(self, process: asyncio.subprocess.Process, names: Mapping[str, Any]) -> None:
        self.pages = {name: Page() for name in names}
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, options: Mapping[str, Any]) -> Pages:
        """Begin with these options of each."""
        process = await asyncio.create_subprocess_exec(
            NODE,
            str(TALK),
            json.dumps(options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process, options)

    def tell(self, **what: Any) -> None:
        """Do this there."""
        assert self._process.stdin
        self._process.stdin.write(f"{json.dumps(what)}\n".encode())

    async def close(self) -> None:
        """End them; every one is then stopped."""
        assert self._process.stdin
        self._process.stdin.close()
        assert await asyncio.wait_for(self._process.wait(), PATIENCE) == 0
        await self._reading
        assert {page.state for page in self.pages.values()} == {"stopped"}

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            told = json.loads(line)
            self.pages[told.pop("page")].told.append(told)


OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture
async def open_page() -> AsyncIterator[OpenPage]:
    """Opens a page: `await open_page(port, token(), poll={…})`."""
    opened: list[Pages] = []

    async def start(port: int, *tokens: str, **options: Any) -> Page:
        options = {"url": f"ws://127.0.0.1:{port}/ws", "tokens": tokens, "timing": QUICK, **options}
        opened.append(await Pages.open({"page": options}))
        return opened[-1].pages["page"]

    yield start
    for pages in opened:
        await pages.close()


async def assign(
    redis: Redis, number: int, *, user: str = "alice", batch: str = "batch", message_id: str | None = None
) -> None:
    """Tell a user of an assigned slot, as the outbox's Redis sink does."""
    message_id = message_id or str(new_id())
    data = {"batch_id": batch, "essay_id": f"essay-{number}", "file_upload_id": f"upload-{number}"}
    message = {
        "event": "essay_slot_assigned",
        "message_id": message_id,
        "data": {**data, "filename": None, "slot_index": number, "text_storage_id": "text"},
    }
    await _say(redis, user, message_id, message)


async def note(redis: Redis, user: str = "alice") -> None:
    """Tell a user that a message was given up, as the relay does."""
    await _say(redis, user, str(new_id()), {"event": "resync_required"})


async def _say(redis: Redis, user: str, message_id: str, message: Mapping[str, Any]) -> None:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xadd(f"ws:{user}:log", {"message_id": message_id, "data": json.dumps(message)})
        pipe.publish(f"ws:{user}", json.dumps(message))
        await pipe.execute()
