"""What the page's tests do without a browser: ask its server, and look at what became of that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import asyncpg
import httpx
from jsonschema import Draft202012Validator

from outbox.huleedu.formats import shipped
from outbox.huleedu.page import Page, PageSettings
from tests.support.gateway import SECRET, token
from tests.support.huleedu import API_KEY, Written, engine_on, written


def page_settings(**changed: Any) -> PageSettings:
    """The page on a free port, with nobody behind it; `database_url` is a change."""
    values = {
        "gateway_url": "ws://127.0.0.1:1/ws",
        "ras_url": "http://127.0.0.1:1",
        "ras_api_key": API_KEY,
        "jwt_secret": SECRET,
        "demo": True,
        "port": 0,
    }
    return PageSettings.model_validate({**values, **changed})


def client(page: Page, bearer: str | None = None) -> httpx.AsyncClient:
    """Asks the page's server, with a token or without."""
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{page.port}", headers=headers)


async def new_batch(page: Page, user: str = "alice") -> str:
    """A batch of three; its id."""
    async with client(page, token(user)) as http:
        batch_id: str = (await http.post("/v1/batches", json={"slots": 3})).json()["batch_id"]
        return batch_id


async def upload(
    http: httpx.AsyncClient,
    batch: str,
    content: bytes | AsyncIterator[bytes] = b"An essay.",
    *,
    upload_id: UUID | str | None = None,
    name: str = "essay.txt",
) -> httpx.Response:
    """Upload a file, as the page does."""
    url = f"/v1/batches/{batch}/files?upload_id={upload_id or uuid4()}"
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
    return await http.post(url, content=content, headers=headers)


async def told_of(url: str, topic: str) -> list[Written]:
    """What the outbox holds for a topic."""
    engine = engine_on(url)
    try:
        return await written(engine, topic)
    finally:
        await engine.dispose()


async def stored_in(url: str) -> list[asyncpg.Record]:
    """The files that are stored."""
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch("SELECT * FROM page_files ORDER BY uploaded_at"))
    finally:
        await connection.close()


def misfits(topic: str, body: Any) -> list[str]:
    """What the shipped schema of a topic has against an event."""
    validator = Draft202012Validator(shipped(topic), format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(body)]
