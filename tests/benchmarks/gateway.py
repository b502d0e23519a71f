"""What one gateway holds: 10,000 pages, 2,000 messages a second, and all pages connecting again at once.

The gateway runs as a process, as it ships, on a Valkey of its own. Pages are as small as can be, one of each
user. They share a process with who publishes; how late that is itself is told beside the result. Messages are
published as the outbox's Redis sink does; their time is taken before that. For the mass reconnect the gateway
is killed, each page misses one message, and all go to another gateway, as behind a load balancer. A page that
is told to load the state would ask RAS: so many requests are counted.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import resource
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import quantiles
from time import monotonic
from typing import Any, cast

import jwt
import psutil
from redis.asyncio import Redis

from outbox import new_id
from outbox.demo.child import Child
from outbox.devstack import Valkey
from outbox.devstack.server import HOST
from tests.support.gateway import claims

Say = Callable[[str], None]

SOCKETS = 10_000
MESSAGES_PER_SECOND = 2_000
SECONDS = 10.0
AT_ONCE = 200
"""Pages that are in a handshake at the same time, while all is well."""
JITTER_SECONDS = 5.0
"""Pages wait for a random part of this before they connect again, as the shipped client does."""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.5, 30.0
HANDSHAKE_SECONDS = 10.0
"""The shipped client's, too."""
PATIENCE_SECONDS = 120.0


class Page(asyncio.Protocol):
    """A page with a WebSocket, and nothing that costs time."""

    def __init__(self, number: int, token: str) -> None:
        self.user = f"user-{number}"
        self.last = ""
        """The id of the last message."""
        self.waits: list[float] = []
        """How long messages were under way."""
        self.heard = 0
        self.told: list[dict[str, Any]] = []
        """What the gateway says by itself."""
        self._token = token
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None]
        self._resumed: asyncio.Future[None] | None = None
        self._open = False

    async def connect(self, port: int) -> None:
        """Open the socket. Raises OSError if that fails."""
        loop = asyncio.get_running_loop()
        self._buffer, self._open, self._opened = b"", False, loop.create_future()
        await loop.create_connection(lambda: self, HOST, port)
        resume = f"?last_message_id={self.last}" if self.last else ""
        lines = (
            f"GET /ws{resume} HTTP/1.1",
            f"Host: {HOST}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            f"Authorization: Bearer {self._token}",
        )
        self._write("\r\n".join((*lines, "", "")).encode())
        await self._opened

    async def resume(self, port: int) -> None:
        """Open the socket again, and learn what was missed. Raises OSError if either fails."""
        self._resumed = asyncio.get_running_loop().create_future()
        await self.connect(port)
        await self._resumed

    def leave(self) -> None:
        """Give the socket up."""
        if self._transport:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        assert self._transport
        self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._open = False
        for waits in (self._opened, self._resumed):
            if waits and not waits.done():
                waits.set_exception(ConnectionError("no socket"))
                waits.exception()  # One of them may have nobody who waits.

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.leave()
                return
            self._open, self._buffer = True, rest
            self._opened.set_result(None)
        while (frame := self._frame()) is not None:
            self._take(*frame)

    def _frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        size, start = buffer[1], 2
        if size == 126:
            size, start = int.from_bytes(buffer[2:4], "big"), 4
        if len(buffer) < start + size:
            return None
        self._buffer = buffer[start + size :]
        return buffer[0] & 15, buffer[start : start + size]

    def _take(self, opcode: int, body: bytes) -> None:
        if opcode == 9:
            self._write(bytes((0x8A, 0x80 | len(body), 0, 0, 0, 0)) + body)
        elif opcode == 8:
            self.leave()
        elif opcode == 1:
            now, message = monotonic(), json.loads(body)
            if "sent" in message:
                self.waits.append(now - message["sent"])
                self.last = message["message_id"]
                self.heard += 1
            else:
                self.told.append({**message, "at": now})
                if self._resumed and not self._resumed.done():
                    self._resumed.set_result(None)


async def measure(say: Say, *, quick: bool = False) -> dict[str, Any]:
    sockets = SOCKETS // (10 if quick else 1)
    rate = MESSAGES_PER_SECOND // (10 if quick else 1)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    secret = secrets.token_urlsafe(32)
    pages = [
        Page(number, jwt.encode(claims(f"user-{number}", exp=2**31), secret, "HS256"))
        for number in range(sockets)
    ]
    gc.collect()
    gc.disable()  # The pages leave no garbage, and to look for it takes half a second, in which all are late.
    async with Valkey() as valkey, Redis.from_url(valkey.url) as redis:
        first, second = (gateway_process(valkey.url, secret, sockets) for _ in range(2))
        try:
            await first.start()
            held = await hold(say, first, pages)
            spread = await publish_at(say, redis, pages, rate)
            await second.start()
            await first.kill()
            again = await all_again(say, redis, pages, port_of(second))
        finally:
            await first.stop()
            await second.stop()
    return {
        **held,
        **spread,
        **again,
        "settings": {"sockets": sockets, "rate": rate, "jitter": JITTER_SECONDS, "cores": os.cpu_count()},
    }


def gateway_process(redis_url: str, secret: str, sockets: int) -> Child:
    environment = {
        "GATEWAY_REDIS_URL": redis_url,
        "GATEWAY_JWT_SECRET": secret,
        "GATEWAY_PORT": "0",
        "GATEWAY_CONNECTIONS": str(sockets),
        "GATEWAY_LOG_FORMAT": "json",
        "GATEWAY_LOG_LEVEL": "info",
        "GATEWAY_DRAIN_SECONDS": "0",
        # As behind a load balancer: else all pages have one address, and a limit together.
        "GATEWAY_TRUSTED_PROXIES": HOST,
    }
    return Child(
        "gateway", ["huleedu", "gateway"], environment, ready="redis.subscribed", hear=lambda *_: None
    )


def port_of(gateway: Child) -> int:
    return int(gateway.said["service.started"]["port"])


async def hold(say: Say, gateway: Child, pages: Sequence[Page]) -> dict[str, Any]:
    """Open all sockets; what each costs the gateway in memory."""
    say(f"{len(pages)} sockets")
    process = psutil.Process(gateway.pid)
    before, places = process.memory_info().rss, asyncio.Semaphore(AT_ONCE)

    async def connect(page: Page) -> None:
        async with places:
            await page.connect(port_of(gateway))

    began = monotonic()
    await asyncio.gather(*map(connect, pages))
    seconds = monotonic() - began
    used = process.memory_info().rss - before
    return {"kb_per_socket": round(used / len(pages) / 1_024, 1), "connect_seconds": round(seconds, 1)}


def heard(pages: Sequence[Page]) -> int:
    return sum(page.heard for page in pages)


async def publish(redis: Redis, pages: Sequence[Page]) -> None:
    """Publish a message to each of these pages, as the sink does, in one MULTI."""
    async with redis.pipeline(transaction=True) as pipe:
        for page in pages:
            name = str(new_id())
            body = json.dumps(
                {"event": "test", "message_id": name, "sent": monotonic(), "padding": "x" * 300}
            )
            log = f"ws:{page.user}:log"
            pipe.xadd(log, {"message_id": name, "data": body}, maxlen=256, approximate=True)
            pipe.expire(log, 300)
            pipe.publish(f"ws:{page.user}", body)
        await pipe.execute()


async def publish_at(say: Say, redis: Redis, pages: Sequence[Page], rate: int) -> dict[str, Any]:
    """Publish at a steady rate, to all pages in turn; how long it takes until they have it."""
    total = max(int(rate * SECONDS), len(pages))
    say(f"{total} messages, {rate} a second")
    order = [page for _ in range(-(-total // len(pages))) for page in random.sample(pages, len(pages))][
        :total
    ]
    step = max(1, rate // 200)
    late: list[float] = []
    watching = asyncio.create_task(lateness(late))
    began = monotonic()
    for first in range(0, total, step):
        await asyncio.sleep(max(0.0, began + first / rate - monotonic()))
        await publish(redis, order[first : first + step])
    await until(lambda: heard(pages) >= total)
    watching.cancel()
    waits = [wait for page in pages for wait in page.waits]
    cuts = quantiles(waits, n=100)
    return {
        "p50_ms": round(cuts[49] * 1_000, 1),
        "p99_ms": round(cuts[98] * 1_000, 1),
        "own_p99_ms": round(quantiles(late, n=100)[98] * 1_000, 1),
        "lost": total - len(waits),
    }


async def lateness(late: list[float]) -> None:
    """Note how late this process itself is, again and again: what it hears it hears so much later."""
    while True:
        began = monotonic()
        await asyncio.sleep(0.005)
        late.append(monotonic() - began - 0.005)


async def all_again(say: Say, redis: Redis, pages: Sequence[Page], port: int) -> dict[str, Any]:
    """Let each page miss a message and connect again; how long until all of them have that."""
    say("all connect again")
    before = heard(pages)
    for first in range(0, len(pages), 500):
        await publish(redis, pages[first : first + 500])
    began = monotonic()
    await asyncio.gather(*(come_back(page, port) for page in pages))
    await until(lambda: heard(pages) - before + len(resyncs(pages)) >= len(pages))
    seconds, asked = monotonic() - began, resyncs(pages)
    most = max(Counter(int(at) for at in asked).values(), default=0)
    return {
        "reconnect_seconds": round(seconds, 1),
        "reconnect_lost": len(pages) - (heard(pages) - before) - len(asked),
        "resyncs": len(asked),
        "ras_requests_per_second": most,
    }


def resyncs(pages: Sequence[Page]) -> list[float]:
    """When pages were told to load the state."""
    return [told["at"] for page in pages for told in page.told if told["event"] == "resync_required"]


async def come_back(page: Page, port: int) -> None:
    """Connect until there is a socket, as the shipped client does: with jitter, and backoff."""
    longest, failures = JITTER_SECONDS, 0
    while True:
        await asyncio.sleep(random.uniform(0.0, longest))  # noqa: S311
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await page.resume(port)
        except OSError:
            page.leave()
            failures += 1
            longest = min(FIRST_RETRY_SECONDS * 2**failures, LONGEST_RETRY_SECONDS)
        else:
            return


async def until(condition: Callable[[], bool]) -> None:
    """Wait until this holds, or patience ends."""
    began = monotonic()
    while not condition() and monotonic() - began < PATIENCE_SECONDS:  # noqa: ASYNC110 (nobody signals it)
        await asyncio.sleep(0.05)
