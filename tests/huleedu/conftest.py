"""A gateway in this process, on the run's Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import SecretStr

from outbox.huleedu.gateway import Gateway, GatewaySettings
from tests.huleedu.gateway.support import SECRET, until

StartGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def start_gateway(redis_url: str) -> AsyncIterator[StartGateway]:
    """Starts gateways with other settings: `await start_gateway(connections=2)`."""
    async with AsyncExitStack() as stack:

        async def start(*, wait: bool = True, **changed: Any) -> Gateway:
            values = {
                "port": 0,
                "redis_url": SecretStr(redis_url),
                "jwt_secret": SecretStr(SECRET),
                "drain_seconds": 0.0,
                "close_timeout_seconds": 2.0,
            }
            settings = GatewaySettings.model_validate({**values, **changed})
            gateway = await stack.enter_async_context(Gateway(settings))
            if wait:
                await until(lambda: gateway.ready)
            return gateway

        yield start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> Gateway:
    """A gateway with its default limits."""
    return await start_gateway()
