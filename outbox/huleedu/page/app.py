"""The page's server over HTTP: the browser's way to RAS, and the demo if it is on. Errors are JSON."""

from __future__ import annotations

from typing import Any

import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from outbox.errors import describe
from outbox.huleedu.database import DATABASE_ERRORS, trouble_with
from outbox.huleedu.ids import ANY_ID
from outbox.huleedu.page.bodies import batch_id_of
from outbox.huleedu.page.demo import Demo
from outbox.huleedu.page.metrics import REGISTRY
from outbox.huleedu.page.settings import PageSettings
from outbox.huleedu.page.shell import Shell
from outbox.huleedu.page.status import status_of
from outbox.huleedu.page.tokens import Bearers
from outbox.web.probes import ProbeAnswer, probes, readyz

_log = structlog.get_logger(__name__)


def application(
    settings: PageSettings, engine: AsyncEngine, ras: httpx.AsyncClient, bearers: Bearers
) -> ASGIApp:
    """Makes the whole server; `ras` is a client that may ask RAS."""
    proxy = Proxy(engine, ras, bearers)
    routes: list[BaseRoute] = [
        *probes(proxy.ready, REGISTRY),
        Route(f"/v1/batches/{{batch_id:{ANY_ID}}}/status", proxy.status),
    ]
    if settings.demo:
        routes += Demo(settings, engine, bearers).routes()
    handlers: dict[Any, Any] = dict.fromkeys(DATABASE_ERRORS, _unavailable)
    handlers |= {HTTPException: _problem, ClientDisconnect: _gone, Exception: _failed}
    return Shell(Starlette(routes=routes, exception_handlers=handlers), settings.gateway_url)


class Proxy:
    """The browser's way to RAS, for the user whom the token names."""

    def __init__(self, engine: AsyncEngine, ras: httpx.AsyncClient, bearers: Bearers) -> None:
        self._engine = engine
        self._ras = ras
        self._bearers = bearers

    async def status(self, request: Request) -> Response:
        """Answers with what RAS tells of a batch."""
        user, batch_id = await self._bearers.user_of(request), batch_id_of(request)
        correlation_id = str(request.state.correlation_id)
        return JSONResponse(await status_of(self._engine, self._ras, user, batch_id, correlation_id))

    async def ready(self) -> ProbeAnswer:
        """Returns whether the database answers, and tokens can be checked; RAS may be away for a while."""
        keys = [] if self._bearers.keys.ready else ["keys: none were fetched yet"]
        return readyz([*await trouble_with(self._engine), *keys])


async def _problem(request: Request, error: HTTPException) -> Response:
    # The rest of what is being sent is not read, however much that is.
    closing = {"Connection": "close"} if request.method == "POST" else {}
    return JSONResponse({"error": error.detail}, error.status_code, {**(error.headers or {}), **closing})


async def _unavailable(_: Request, error: Exception) -> Response:
    _log.warning("page.unavailable", reason=describe(error))
    return JSONResponse({"error": "The database does not answer, try again"}, 503, {"Retry-After": "1"})


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # Nobody reads it.


async def _failed(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "Internal error"}, 500)
