"""Faults at random, by seed: every assigned slot is shown within 60 s of the end of the fault, none twice.

Pages have the waits of real pages, and all scenarios run at once. `SCENARIOS=200` asks for so many seeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import pytest
from redis.asyncio import Redis

from outbox.devstack.server import free_port
from outbox.huleedu.gateway import Gateway
from tests.huleedu.client.conftest import Page, Pages, assign, note
from tests.support.gateway import settings, token, until
from tests.support.network import Network, network
from tests.support.page_server import PageServer, page_server

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
                    await assign(self.redis, number, user=self.user, batch=self.user)
                tasks.create_task(self._learn(number, self.lag))

    async def _note(self) -> None:
        await until(lambda: not self.holes, deadline=FAULTS_LAST)
        await note(self.redis, self.user)

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
    await scenario.redis.delete(f"ws:{scenario.user}:log")
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


async def _start(stack: AsyncExitStack, seed: int, port: int, redis: Redis) -> Scenario:
    server = await stack.enter_async_context(page_server())
    gateways = await stack.enter_async_context(network(port))
    servers = await stack.enter_async_context(network(server.port))
    server.essays[f"user-{seed}"] = []
    return Scenario(seed, redis, gateways, servers, server)


@asynccontextmanager
async def _serving(redis_url: str, port: int, restart: asyncio.Event) -> AsyncIterator[None]:
    """There is a gateway, and another when it is time."""

    async def serve() -> None:
        for ending in (restart, asyncio.Event()):
            async with Gateway(settings(redis_url=redis_url, port=port)):
                await ending.wait()

    serving = asyncio.create_task(serve())
    yield
    serving.cancel()
    await asyncio.wait([serving])


def _missing(page: Page) -> set[str]:
    return {f"upload-{number}" for number in range(1, SLOTS + 1)} - set(page.uploads)


async def test_every_slot_is_shown_within_a_minute_of_the_end_of_the_fault_and_none_twice(
    redis_url: str, redis: Redis
) -> None:
    port, restart = free_port(), asyncio.Event()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_serving(redis_url, port, restart))
        scenarios = [await _start(stack, seed, port, redis) for seed in SEEDS]
        pages = await Pages.open({scenario.user: scenario.options for scenario in scenarios})
        stack.push_async_callback(pages.close)
        each = pages.pages.values()
        # What a page learns by its first question was so before it looked.
        await until(lambda: all(page.state == "open" and page.all("batch") for page in each), deadline=30)
        asyncio.get_running_loop().call_later(FAULTS_LAST / 2, restart.set)
        async with asyncio.TaskGroup() as tasks:
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
