"""The page's server over HTTP: the page itself, and what it asks. Errors are JSON, `{"error": "…"}`."""

from __future__ import annotations

from importlib.resources import files as resources
from typing import Any, Final
from uuid import UUID

import httpx
import structlog
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from outbox.errors import describe
from outbox.huleedu.database import DATABASE_ERRORS, trouble_with
from outbox.huleedu.events import CONTENT_PROVISIONED, EXCESS_CONTENT, SLOT_ASSIGNED
from outbox.huleedu.page.batches import Batches, NewBatch
from outbox.huleedu.page.bodies import body_of, json_of
from outbox.huleedu.page.files import Files, Upload
from outbox.huleedu.page.metrics import REGISTRY
from outbox.huleedu.page.settings import PageSettings
from outbox.huleedu.page.shell import Shell
from outbox.huleedu.page.status import status_of
from outbox.huleedu.page.tokens import DemoTokens
from outbox.huleedu.page.way import way_of
from outbox.settings import loaded
from outbox.web.probes import ProbeAnswer, probes, readyz

_log = structlog.get_logger(__name__)

_HULEEDU: Final = resources("outbox.huleedu")


class Login(BaseModel):
    """The name of the user that somebody wants to be."""

    user: str


def application(settings: PageSettings, engine: AsyncEngine, ras: httpx.AsyncClient) -> ASGIApp:
    """Makes the page's whole server; `ras` is a client that may ask RAS."""
    api = Api(settings, engine, ras)
    routes = [
        *probes(api.ready, REGISTRY),
        Route("/v1/page", api.page),
        Route("/v1/demo/login", api.login, methods=["POST"]),
        Route("/v1/batches", api.batches),
        Route("/v1/batches", api.create_batch, methods=["POST"]),
        Route("/v1/batches/{batch_id}/files", api.files),
        Route("/v1/batches/{batch_id}/files", api.upload, methods=["POST"]),
        Route("/v1/batches/{batch_id}/status", api.status),
        Route("/v1/uploads/{file_upload_id:uuid}/way", api.way),
        Mount("/client", StaticFiles(directory=str(_HULEEDU / "client" / "dist"))),
        Mount("/", StaticFiles(directory=str(_HULEEDU / "page" / "static"), html=True)),
    ]
    handlers: dict[Any, Any] = dict.fromkeys(DATABASE_ERRORS, _unavailable)
    handlers |= {HTTPException: _problem, ClientDisconnect: _gone, Exception: _failed}
    return Shell(Starlette(routes=routes, exception_handlers=handlers), settings.gateway_url)


class Api:
    """What the page asks over HTTP. All but `page` and `login` answer for the user whom the token names."""

    def __init__(self, settings: PageSettings, engine: AsyncEngine, ras: httpx.AsyncClient) -> None:
        self._settings = settings
        self._engine = engine
        self._ras = ras
        self._tokens = DemoTokens(settings)
        self._batches = Batches(settings, engine)
        self._files = Files(settings, engine)

    async def page(self, _: Request) -> Response:
        """Answers with what the page has to know of this server: limits, users, the gateway's URL."""
        settings = self._settings
        return JSONResponse(
            {
                "gateway_url": settings.gateway_url,
                "users": settings.demo_users,
                "limits": {
                    "slots": settings.slots,
                    "file_bytes": settings.file_bytes,
                    "file_name_characters": settings.file_name_characters,
                },
                "topics": {
                    "content_provisioned": CONTENT_PROVISIONED,
                    "slot_assigned": SLOT_ASSIGNED,
                    "excess_content": EXCESS_CONTENT,
                },
            }
        )

    async def login(self, request: Request) -> Response:
        """Answers with a token for a demo user."""
        user = (await json_of(request, Login, self._settings.upload_seconds)).user
        if user not in self._settings.demo_users:
            raise HTTPException(403, f"Be one of {', '.join(self._settings.demo_users)}")
        return JSONResponse({"user": user, "token": self._tokens.issue(user)})

    async def batches(self, request: Request) -> Response:
        """Answers with the user's batches."""
        return JSONResponse({"batches": await self._batches.of(self._tokens.user_of(request))})

    async def create_batch(self, request: Request) -> Response:
        """Makes a batch, and answers with it."""
        user = self._tokens.user_of(request)
        new = await json_of(request, NewBatch, self._settings.upload_seconds)
        return JSONResponse(await self._batches.create(user, new, request.state.correlation_id), 201)

    async def files(self, request: Request) -> Response:
        """Answers with the files of a batch."""
        user = self._tokens.user_of(request)
        return JSONResponse({"files": await self._files.of(user, _batch_id(request))})

    async def upload(self, request: Request) -> Response:
        """Stores a file.

        The request's body is the file, `?name=` its name, `upload_id=` the browser's UUID for it.
        """
        settings, user = self._settings, self._tokens.user_of(request)
        name = request.query_params.get("name", "").replace("\0", "").strip()
        if len(name) > settings.file_name_characters:
            raise HTTPException(422, f"name: at most {settings.file_name_characters} characters")
        upload_id = _uuid(request.query_params.get("upload_id", ""))
        content = await body_of(request, settings.file_bytes, settings.upload_seconds)
        upload = Upload(upload_id, name or None, content, request.state.correlation_id)
        stored, new = await self._files.store(user, _batch_id(request), upload)
        return JSONResponse(stored, 201 if new else 200)

    async def status(self, request: Request) -> Response:
        """Answers with what RAS tells of a batch."""
        user = self._tokens.user_of(request)
        correlation_id = str(request.state.correlation_id)
        return JSONResponse(
            await status_of(self._engine, self._ras, user, _batch_id(request), correlation_id)
        )

    async def way(self, request: Request) -> Response:
        """Answers with the way of an upload through the system."""
        user = self._tokens.user_of(request)
        return JSONResponse(await way_of(self._engine, loaded(), user, request.path_params["file_upload_id"]))

    async def ready(self) -> ProbeAnswer:
        """Returns whether the database answers: without RAS or the gateway it still takes files."""
        return readyz(await trouble_with(self._engine))


def _batch_id(request: Request) -> str:
    batch_id: str = request.path_params["batch_id"]
    if "\0" in batch_id:
        raise HTTPException(404, "Batch not found")
    return batch_id


def _uuid(given: str) -> UUID:
    try:
        return UUID(given)
    except ValueError:
        raise HTTPException(422, "upload_id: must be a UUID") from None


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
