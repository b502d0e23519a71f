"""Faults at random, by seed: every assigned slot is shown within 60 s of the end of the fault, none twice.

Pages have the waits of real pages, and all scenarios run at once: those of odd seeds on a Redis with
Sentinels, which is failed over. `SCENARIOS=200` asks for so many seeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from outbox import new_id
from outbox.devstack.server import free_port
from outbox.huleedu.gateway import Gateway
from outbox.redis_server import RedisServer
from tests.huleedu.client.conftest import Page, Pages, assign, note
from tests.support.gateway import settings, token, until
from tests.support.network import Network, network
from tests.support.page_server import PageServer, page_server
from tests.support.sentinel import Watched, watched

pytestmark = pytest.mark.slow

SEEDS = range(int(os.environ.get("SCENARIOS", "20")))
SLOTS = 6
FAULTS_LAST = 30.0
"""Seconds, at most, from the first fault to the end of the last."""
SHOWN_WITHIN = 60.0


@dataclass
class Scenario:
    """One user with a page, behind a network of its own."""

    seed: int
    redis: Redis
    gateways: Network
    servers: Network
    server: PageServer
    random: random.Random = field(init=False)
    said: list[str] = field(default_factory=list)
    """What was done, for who reads a failure."""
    holes: bool = False
    """True while Redis loses what is published."""
    lag: float = 0.0
    """By how many seconds RAS lags."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311

    @property
    def user(self) -> str:
        """Whose page it is, and which batch."""
        return f"user-{self.seed}"

    @property
    def options(self) -> dict[str, Any]:
        """The page's."""
        return {
            "url": f"ws://127.0.0.1:{self.gateways.port}/ws",
            "tokens": [self.token],
            "poll": {"url": f"http://127.0.0.1:{self.servers.port}", "batchIds": [self.user]},
        }

    @property
    def token(self) -> str:
        """A good one."""
        return token(self.user, exp=int(time.time()) + 3_600)

    async def assign(self) -> None:
        """Assign slots at random times; nobody waits for who should learn of it."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(1, SLOTS + 1):
                await asyncio.sleep(self.random.uniform(0, FAULTS_LAST / SLOTS))
                if self.holes:
                    # The relay's note for what expired: it comes once Redis is reached again.
                    tasks.create_task(self._note())
                else:
                    await self._publish(number)
                tasks.create_task(self._learn(number, self.lag))

    async def _publish(self, number: int) -> None:
        name = str(new_id())
        await self.persist(
            lambda: assign(self.redis, number, user=self.user, batch=self.user, message_id=name)
        )

    async def _note(self) -> None:
        await until(lambda: not self.holes, deadline=FAULTS_LAST)
        await self.persist(lambda: note(self.redis, self.user))

    async def persist(self, ask: Callable[[], Awaitable[Any]]) -> None:
        """Ask Redis for this until it is done, as a relay does."""
        while True:
            with contextlib.suppress(RedisError, OSError):
                await ask()
                return
            await asyncio.sleep(0.1)

    async def _learn(self, number: int, lag: float) -> None:
        await asyncio.sleep(lag)
        self.server.assigned(self.user, number)

    async def suffer(self, pages: Pages) -> None:
        """Let faults come and go, several at once, until they have lasted long enough."""
        kinds = self.random.sample(sorted(FAULTS), self.random.randint(1, 4))
        async with asyncio.TaskGroup() as tasks:
            for kind in kinds:
                begin = self.random.uniform(0, FAULTS_LAST / 2)
                length = self.random.uniform(0.5, FAULTS_LAST / 2)
                self.said.append(f"{kind} from {begin:.1f} s for {length:.1f} s")
                tasks.create_task(self._fault(kind, begin, length, pages))

    async def _fault(self, kind: str, begin: float, length: float, pages: Pages) -> None:
        await asyncio.sleep(begin)
        async with FAULTS[kind](self, pages):
            await asyncio.sleep(length)


Fault = Callable[[Scenario, Pages], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _swallow(scenario: Scenario, _: Pages) -> AsyncIterator[None]:
    async with _swallow_sockets(scenario, _):
        scenario.servers.swallow()
        yield
        scenario.servers.swallow(on=False)


@asynccontextmanager
async def _swallow_sockets(scenario: Scenario, _: Pages) -> AsyncIterator[None]:
    scenario.gateways.swallow()
    yield
    scenario.gateways.swallow(on=False)


@asynccontextmanager
async def _forget(scenario: Scenario, _: Pages) -> AsyncIterator[None]:
    """A NAT forgets the connections that there are, and takes others."""
    scenario.gateways.swallow()
    scenario.gateways.swallow(on=False)
    yield


@asynccontextmanager
async def _half_close(scenario: Scenario, _: Pages) -> AsyncIterator[None]:
    scenario.gateways.half_close()
    yield


@asynccontextmanager
async def _cut(scenario: Scenario, _: Pages) -> AsyncIterator[None]:
    scenario.gateways.refuses = True
    scenario.gateways.cut()
    yield
    scenario.gateways.refuses = False


@asynccontextmanager
async def _delay(scenario: Scenario, _: Pages) -> AsyncIterator[None]:
    scenario.gateways.delay = scenario.servers.delay = scenario.random.uniform(1, 12)
    yield
    scenario.gateways.delay = scenario.servers.delay = 0.0


@asynccontextmanager
async def _bad_answers(scenario: Scenario, _: Pages) -> AsyncIterator[None]:
    kinds = (HTTPStatus.OK, HTTPStatus.BAD_GATEWAY, HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
    scenario.server.trouble = scenario.random.choice(kinds)
    yield
    scenario.server.trouble = None


@asynccontextmanager
async def _bad_tokens(scenario: Scenario, pages: Pages) -> AsyncIterator[None]:
    """The page's way to tokens is bad, and its socket ends."""
    kinds = (None, "<html>Bad gateway</html>", token(scenario.user, exp=1), "signed.by.nobody")
    pages.tell(page=scenario.user, tokens=[scenario.random.choice(kinds)])
    scenario.gateways.cut()
    yield
    pages.tell(page=scenario.user, tokens=[scenario.token])


@asynccontextmanager
async def _holes(scenario: Scenario, _: Pages) -> AsyncIterator[None]:
    scenario.holes = True
    yield
    scenario.holes = False


@asynccontextmanager
async def _lose_the_log(scenario: Scenario, _: Pages) -> AsyncIterator[None]:
    scenario.gateways.cut()
    await scenario.persist(lambda: scenario.redis.delete(f"ws:{scenario.user}:log"))
    yield


@asynccontextmanager
async def _lag(scenario: Scenario, _: Pages) -> AsyncIterator[None]:
    scenario.lag = scenario.random.uniform(1, 20)
    yield
    scenario.lag = 0.0


@asynccontextmanager
async def _clock(scenario: Scenario, pages: Pages) -> AsyncIterator[None]:
    """Of all pages, which are one process."""
    pages.tell(clock=scenario.random.choice((-86_400_000, -60_000, 60_000, 86_400_000)))
    yield
    pages.tell(clock=0)


FAULTS: dict[str, Fault] = {
    "everything is swallowed": _swallow,
    "the socket's way swallows": _swallow_sockets,
    "connections are forgotten": _forget,
    "connections are half closed": _half_close,
    "connections are cut and refused": _cut,
    "everything is late": _delay,
    "the server answers badly": _bad_answers,
    "tokens are bad": _bad_tokens,
    "Redis loses what is published": _holes,
    "the log is lost": _lose_the_log,
    "RAS lags": _lag,
    "the clock is set": _clock,
}


async def _start(stack: AsyncExitStack, seed: int, serving: Serving) -> Scenario:
    server = await stack.enter_async_context(page_server())
    gateways = await stack.enter_async_context(network(serving.port))
    servers = await stack.enter_async_context(network(server.port))
    server.essays[f"user-{seed}"] = []
    return Scenario(seed, serving.redis, gateways, servers, server)


@dataclass
class Serving:
    """A gateway, and the Redis that it serves from."""

    redis: Redis
    port: int
    url: str

    async def run(self, restart: asyncio.Event) -> None:
        """Be there, as another one when it is time."""
        for ending in (restart, asyncio.Event()):
            async with Gateway(settings(redis_url=SecretStr(self.url), port=self.port)):
                await ending.wait()


@asynccontextmanager
async def _serving(redis_url: str, restart: asyncio.Event) -> AsyncIterator[Serving]:
    server = RedisServer.of(redis_url, socket_timeout=1.0, socket_connect_timeout=1.0)
    async with Redis.from_pool(server.pool()) as redis:
        serving = Serving(redis, free_port(), redis_url)
        running = asyncio.create_task(serving.run(restart))
        yield serving
        running.cancel()
        await asyncio.wait([running])


async def _fail_over(sentinels: Watched) -> None:
    """Kill the master at a random time; returns when another one leads."""
    await asyncio.sleep(random.Random(len(SEEDS)).uniform(0, FAULTS_LAST - 5))  # noqa: S311
    await sentinels.first.kill()
    await sentinels.until_second_leads()


def _missing(page: Page) -> set[str]:
    return {f"upload-{number}" for number in range(1, SLOTS + 1)} - set(page.uploads)


async def test_every_slot_is_shown_within_a_minute_of_the_end_of_the_fault_and_none_twice(
    redis_url: str,
) -> None:
    restart = asyncio.Event()
    async with AsyncExitStack() as stack:
        sentinels = await stack.enter_async_context(watched())
        serving = [
            await stack.enter_async_context(_serving(url, restart)) for url in (redis_url, sentinels.url)
        ]
        scenarios = [await _start(stack, seed, serving[seed % 2]) for seed in SEEDS]
        pages = await Pages.open({scenario.user: scenario.options for scenario in scenarios})
        stack.push_async_callback(pages.close)
        each = pages.pages.values()
        # What a page learns by its first question was so before it looked.
        await until(lambda: all(page.state == "open" and page.all("batch") for page in each), deadline=30)
        asyncio.get_running_loop().call_later(FAULTS_LAST / 2, restart.set)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_fail_over(sentinels))
            for scenario in scenarios:
                tasks.create_task(scenario.suffer(pages))
                tasks.create_task(scenario.assign())

        def unseen() -> dict[int, tuple[set[str], list[str]]]:
            left = ((scenario, _missing(pages.pages[scenario.user])) for scenario in scenarios)
            return {scenario.seed: (missing, scenario.said) for scenario, missing in left if missing}

        ended = time.monotonic()
        with contextlib.suppress(TimeoutError):
            await until(lambda: not unseen(), deadline=SHOWN_WITHIN)
        print(
            f"{len(SEEDS)} scenarios: every slot was shown {time.monotonic() - ended:.1f} s after the faults"
        )
        assert unseen() == {}
        for scenario in scenarios:
            slots = pages.pages[scenario.user].all("slot")
            assert len(slots) == SLOTS, (scenario.seed, scenario.said)
            assert all(slot["live"] or slot["recovered"] for slot in slots), (scenario.seed, scenario.said)
