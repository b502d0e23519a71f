"""RAS over HTTP: one question, asked by services within."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Depends, FastAPI, Header, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.exceptions import HTTPException

from outbox.distribution import VERSION
from outbox.errors import describe
from outbox.huleedu.database import DATABASE_ERRORS
from outbox.huleedu.ids import ANY_ID
from outbox.huleedu.ras.answer import BatchStatus, Problem
from outbox.huleedu.ras.callers import Callers, correlation_id_of
from outbox.huleedu.ras.metrics import REQUESTS, SECONDS
from outbox.huleedu.ras.read import status_of
from outbox.huleedu.ras.settings import RasSettings

_log = structlog.get_logger(__name__)

_CORRELATION_HEADER = "X-Correlation-ID"

_key_header = APIKeyHeader(name="X-Internal-API-Key", scheme_name="InternalApiKey", auto_error=False)
_service_header = APIKeyHeader(name="X-Service-ID", scheme_name="ServiceId", auto_error=False)


def application(settings: RasSettings, engine: AsyncEngine) -> FastAPI:
    """Makes the API; its description is at `/openapi.json`."""
    app = FastAPI(
        title="Result Aggregator Service",
        version=VERSION,
        description="What is known of a batch of essays: slots, spellcheck, assessment.",
        # The pages fetch scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    callers = Callers(settings)

    def admit(
        api_key: Annotated[str | None, Security(_key_header)],
        service_id: Annotated[str | None, Security(_service_header)],
        correlation_id: Annotated[
            str | None,
            Header(
                alias=_CORRELATION_HEADER,
                description="Answered as it is if it has at most 128 letters, digits and `._:/+=-`.",
            ),
        ] = None,
    ) -> None:
        del correlation_id  # The middleware reads it, for answers without a route too.
        if not callers.may_ask(api_key, service_id):
            raise HTTPException(401, "Missing or invalid credentials", {"WWW-Authenticate": "APIKey"})

    @app.get(
        f"/internal/v1/batches/{{batch_id:{ANY_ID}}}/status",
        dependencies=[Depends(admit)],
        responses={
            200: {"headers": {_CORRELATION_HEADER: {"schema": {"type": "string"}}}},
            401: {"model": Problem, "description": "Missing or invalid credentials"},
            404: {"model": Problem, "description": "There is no such batch, or it is not registered yet"},
            503: {"model": Problem, "description": "The database cannot be reached"},
            "default": {"model": Problem, "description": "Anything else"},
        },
        operation_id="batch_status",
        summary="How a batch is",
    )
    async def batch_status(batch_id: str) -> BatchStatus:
        # PostgreSQL holds no such character, so there is no such batch.
        found = None if "\0" in batch_id else await status_of(engine, batch_id)
        if found is None:
            raise HTTPException(404, "Batch not found")
        return found

    _ask_for_both(app)
    app.middleware("http")(_observed)
    app.add_exception_handler(HTTPException, _problem)
    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, _unavailable)
    return app


def _ask_for_both(app: FastAPI) -> None:
    """Says in the API's description that a caller needs both headers; FastAPI says one of them."""
    for path in app.openapi()["paths"].values():
        for operation in path.values():
            operation["security"] = [{name: [] for scheme in operation["security"] for name in scheme}]


async def _observed(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Counts and times a request, and gives it its correlation id."""
    correlation_id = correlation_id_of(request.headers.get(_CORRELATION_HEADER))
    began = time.monotonic()
    with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
        response = await answer(request)
    response.headers[_CORRELATION_HEADER] = correlation_id
    REQUESTS.labels(response.status_code).inc()
    SECONDS.observe(time.monotonic() - began)
    return response


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (as it was registered)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _unavailable(_: Request, error: Exception) -> Response:
    _log.warning("ras.unavailable", reason=describe(error))
    return JSONResponse({"error": "Unavailable, try again"}, 503, {"Retry-After": "1"})
