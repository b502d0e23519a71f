"""A page's server as the browser client needs one: the client's modules, and what RAS says of batches."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.support.node import CLIENT

_PAGE = "<!doctype html><title>A page</title><link rel=icon href='data:,'>"
_TYPES = {"": "text/html", "js": "text/javascript", "json": "application/json"}


class PageServer:
    """Answers for RAS, which may lag, be away, or be taken for a captive portal."""

    port: int

    def __init__(self) -> None:
        self.essays: dict[str, list[dict[str, Any]]] = {}
        """By batch; a batch that is not here is not known yet."""
        self.trouble: HTTPStatus | None = None
        """What is answered instead; OK stands for a page of somebody else."""
        self.asked: list[str] = []
        """The batches that were asked about."""

    def assigned(self, batch: str, number: int) -> None:
        """From now on RAS knows of this slot."""
        essay = {"essay_id": f"essay-{number}", "file_upload_id": f"upload-{number}", "slot_index": number}
        self.essays.setdefault(batch, []).append(essay)

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers a request for a status, a module or the page."""
        match request.path.strip("/").split("/"):
            case ["v1", "batches", batch, "status"]:
                return self._status(batch)
            case ["client", name] if (file := CLIENT / "dist" / name).is_file():
                return _response(HTTPStatus.OK, file.read_text(), "js")
            case [""]:
                return _response(HTTPStatus.OK, _PAGE, "")
            case _:
                return connection.respond(HTTPStatus.NOT_FOUND, "")

    def _status(self, batch: str) -> Response:
        self.asked.append(batch)
        if self.trouble:
            return _response(self.trouble, _PAGE, "")
        if batch not in self.essays:
            return _response(HTTPStatus.NOT_FOUND, '{"error":"Batch not found"}', "json")
        return _response(HTTPStatus.OK, json.dumps({"batch_id": batch, "essays": self.essays[batch]}), "json")


def _response(status: HTTPStatus, body: str, kind: str) -> Response:
    content = body.encode()
    headers = {
        "Content-Type": f"{_TYPES[kind]}; charset=utf-8",
        "Content-Length": str(len(content)),
        "Connection": "close",
    }
    return Response(status, status.phrase, Headers(headers), content)


@asynccontextmanager
async def page_server() -> AsyncIterator[PageServer]:
    """Serves on a free port, within the block."""
    page = PageServer()

    async def nothing(_: ServerConnection) -> None:
        """Nobody opens a socket here."""

    async with serve(nothing, "127.0.0.1", 0, process_request=page.answer) as listening:
        page.port = listening.sockets[0].getsockname()[1]
        yield page
