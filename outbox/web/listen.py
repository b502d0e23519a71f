"""An ASGI application served by uvicorn within a loop that is busy with other things too."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from outbox.errors import SettingsError
from outbox.web.bounds import BACKLOG, HEAD_BYTES, BoundedProtocol


@asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int, *, variable: str) -> AsyncIterator[int]:
    """Serves `app` within the block; gives the port, which is a free one where 0 was asked for.

    Raises `SettingsError`, naming the `variable` that the port comes from, where the address cannot be had.
    """
    with bound(host, port, variable) as listener:
        server = _Uvicorn(
            uvicorn.Config(
                app,
                http=partial(BoundedProtocol, {}),  # type: ignore[arg-type]  # called, never looked at
                ws="none",
                h11_max_incomplete_event_size=HEAD_BYTES,
                backlog=BACKLOG,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        task = asyncio.create_task(server.serve(sockets=[listener]), name="outbox http")
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


class _Uvicorn(uvicorn.Server):
    """A uvicorn that leaves signals to whoever runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bound(host: str, port: int, variable: str) -> socket.socket:
    """Returns a socket that listens there; raises as `listening` does."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"{variable}={port}: cannot listen on {host}: {error.strerror or error}; "
            "choose another one, or 0 for any that is free"
        ) from error
