"""Reads requests: their bodies no further than they are allowed to go, and what they name."""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar
from urllib.parse import unquote
from uuid import UUID

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from outbox.huleedu.events.fields import ID_BYTES

_JSON_BYTES = 4_096

M = TypeVar("M", bound=BaseModel)


async def body_of(request: Request, most: int, seconds: float) -> bytes:
    """Returns the body of a request.

    Raises a 413 if it has more than `most` bytes, a 408 if it takes longer than `seconds`.
    """
    if int(request.headers.get("Content-Length", 0)) > most:
        raise _too_large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise _too_large(most)
    except TimeoutError:
        raise HTTPException(408, f"It did not arrive within {seconds:g} seconds") from None
    return bytes(body)


async def json_of(request: Request, model: type[M], seconds: float) -> M:
    """Returns the body, JSON of the form of `model`. Raises a 422 that says what is wrong with it."""
    if request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Send application/json")
    body = await body_of(request, _JSON_BYTES, seconds)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"]))
        said = problem["msg"].removeprefix("Value error, ")
        raise HTTPException(422, f"{place}: {said}" if place else said) from None


_FILE_NAME = re.compile(r"""filename\*=utf-8''(?P<encoded>[^\s;"]*)\s*(;|$)""", re.IGNORECASE)


def file_name_of(request: Request) -> str:
    """Returns what the uploaded file is called, nothing if the request does not say.

    It is read as RFC 6266 has it: `Content-Disposition: attachment; filename*=UTF-8''na%C3%AFve.txt`.
    """
    if "name" in request.query_params:
        raise HTTPException(422, "name: belongs into Content-Disposition, as filename*=UTF-8''…")
    found = _FILE_NAME.search(request.headers.get("Content-Disposition", ""))
    try:
        name = unquote(found["encoded"], errors="strict") if found else ""
    except UnicodeDecodeError:
        raise HTTPException(422, "name: is not in UTF-8") from None
    return name.replace("\0", "").strip()


def batch_id_of(request: Request) -> str:
    """Returns the batch in the request's path. Raises a 404 for what can be no batch's id."""
    batch_id: str = request.path_params["batch_id"]
    # PostgreSQL could not hold it, or it would be a step in the path of RAS.
    if "\0" in batch_id or batch_id in (".", "..") or len(batch_id) > ID_BYTES:
        raise HTTPException(404, "Batch not found")
    return batch_id


def uuid_of(given: str) -> UUID:
    """Returns the UUID that an upload is given by the browser. Raises a 422 where it is none."""
    try:
        return UUID(given)
    except ValueError:
        raise HTTPException(422, "upload_id: must be a UUID") from None


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"It is too large, at most {most:,} bytes are taken")
