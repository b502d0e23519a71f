"""What the tests of HuleEdu's services start: databases with their tables, gateways on the run's Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from outbox.huleedu.gateway import Gateway
from outbox.huleedu.migrate import upgrade
from tests.support.gateway import settings, until
from tests.support.postgres import Cluster

StartGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def huleedu_database(postgres: Cluster) -> AsyncIterator[str]:
    """The URL of a database of the test's own with the outbox's tables and HuleEdu's."""
    async with postgres.database(template=await postgres.template(upgrade)) as url:
        yield url


@pytest.fixture
async def start_gateway(redis_url: str) -> AsyncIterator[StartGateway]:
    """Starts gateways with other settings: `await start_gateway(connections=2)`."""
    async with AsyncExitStack() as stack:

        async def start(*, wait: bool = True, **changed: Any) -> Gateway:
            gateway = await stack.enter_async_context(
                Gateway(settings(**{"redis_url": redis_url, **changed}))
            )
            if wait:
                await until(lambda: gateway.ready)
            return gateway

        yield start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> Gateway:
    """A gateway with its default limits."""
    return await start_gateway()
