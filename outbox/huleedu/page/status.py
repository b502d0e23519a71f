"""The browser's way to RAS: the internal key stays here, and each user sees only their own batches.

Whose a batch is that nobody named a user for is told by the page's own record.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.exceptions import HTTPException

from outbox.errors import describe
from outbox.huleedu.page.settings import PageSettings
from outbox.huleedu.schema import page_batches

_log = structlog.get_logger(__name__)


def ras_client(settings: PageSettings) -> httpx.AsyncClient:
    """Makes a client that asks RAS as this service."""
    return httpx.AsyncClient(
        base_url=settings.ras_url,
        headers={
            "X-Internal-API-Key": settings.ras_api_key.get_secret_value(),
            "X-Service-ID": settings.ras_service_id,
        },
        timeout=settings.ras_timeout_seconds,
    )


async def status_of(
    engine: AsyncEngine, ras: httpx.AsyncClient, user: str, batch_id: str, correlation_id: str
) -> dict[str, Any]:
    """Returns RAS's answer on a batch, without `user_id`.

    Raises a 404, a 403 for another's batch, a 503 while RAS is away.
    """
    try:
        answer = await ras.get(
            f"/internal/v1/batches/{quote(batch_id, safe='')}/status",
            headers={"X-Correlation-ID": correlation_id},
        )
    except httpx.HTTPError as error:
        _log.warning("page.ras_away", reason=describe(error))
        raise _away() from None
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise HTTPException(404, "Batch not found")
    if answer.status_code != httpx.codes.OK:
        _log.error("page.ras_refused", status=answer.status_code)
        raise _away()
    status = _json_of(answer)
    if (status.pop("user_id", None) or await _creator(engine, batch_id)) != user:
        raise HTTPException(403, "It is not your batch")
    return status


def _json_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        status = answer.json()
    except (ValueError, RecursionError):
        status = None
    if not isinstance(status, dict):
        _log.error("page.ras_unreadable", content_type=answer.headers.get("Content-Type"))
        raise _away()
    return status


async def _creator(engine: AsyncEngine, batch_id: str) -> str | None:
    """Returns who created the batch here, and so is who may upload into it; None if nobody did."""
    async with engine.connect() as connection:
        created = select(page_batches.c.user_id).where(page_batches.c.batch_id == batch_id)
        found: str | None = await connection.scalar(created)
        return found


def _away() -> HTTPException:
    return HTTPException(503, "The results service does not answer, try again", {"Retry-After": "1"})
