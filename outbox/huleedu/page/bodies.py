"""Reads the bodies of requests, and no further than they are allowed to go."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

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


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"It is too large, at most {most:,} bytes are taken")
