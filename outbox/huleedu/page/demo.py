"""The demo: the page on which teachers upload essays, and the small services behind it.

They stand in for HuleEdu's Batch, File and Identity services; anybody may be one of the demo users.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files as resources
from typing import Final

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from outbox.huleedu.events import CONTENT_PROVISIONED, EXCESS_CONTENT, SLOT_ASSIGNED
from outbox.huleedu.page.batches import Batches, NewBatch
from outbox.huleedu.page.bodies import batch_id_of, body_of, file_name_of, json_of, uuid_of
from outbox.huleedu.page.files import Files, Upload
from outbox.huleedu.page.settings import PageSettings
from outbox.huleedu.page.tokens import Bearers, DemoTokens
from outbox.huleedu.page.way import way_of
from outbox.settings import loaded

_HULEEDU: Final = resources("outbox.huleedu")


class Login(BaseModel):
    """The name of the user that somebody wants to be."""

    user: str


class Demo:
    """What the page asks over HTTP. All but `page` and `login` answer for the user whom the token names."""

    def __init__(self, settings: PageSettings, engine: AsyncEngine, bearers: Bearers) -> None:
        self._settings = settings
        self._engine = engine
        self._bearers = bearers
        self._tokens = DemoTokens(settings)
        self._batches = Batches(settings, engine)
        self._files = Files(settings, engine)

    def routes(self) -> Sequence[BaseRoute]:
        """Returns what there is in the demo alone; the page itself takes what nothing else does."""
        return [
            Route("/v1/page", self.page),
            Route("/v1/demo/login", self.login, methods=["POST"]),
            Route("/v1/batches", self.batches),
            Route("/v1/batches", self.create_batch, methods=["POST"]),
            Route("/v1/batches/{batch_id}/files", self.files),
            Route("/v1/batches/{batch_id}/files", self.upload, methods=["POST"]),
            Route("/v1/uploads/{file_upload_id:uuid}/way", self.way),
            Mount("/client", StaticFiles(directory=str(_HULEEDU / "client" / "dist"))),
            Mount("/", StaticFiles(directory=str(_HULEEDU / "page" / "static"), html=True)),
        ]

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
        return JSONResponse({"batches": await self._batches.of(await self._bearers.user_of(request))})

    async def create_batch(self, request: Request) -> Response:
        """Makes a batch, and answers with it."""
        user = await self._bearers.user_of(request)
        new = await json_of(request, NewBatch, self._settings.upload_seconds)
        return JSONResponse(await self._batches.create(user, new, request.state.correlation_id), 201)

    async def files(self, request: Request) -> Response:
        """Answers with the files of a batch."""
        user = await self._bearers.user_of(request)
        return JSONResponse({"files": await self._files.of(user, batch_id_of(request))})

    async def upload(self, request: Request) -> Response:
        """Stores a file.

        The request's body is the file, `?upload_id=` the browser's UUID for it. Its name is in
        `Content-Disposition`, since what is in a URL stands in logs.
        """
        settings, user = self._settings, await self._bearers.user_of(request)
        name = file_name_of(request)
        if len(name) > settings.file_name_characters:
            raise HTTPException(422, f"name: at most {settings.file_name_characters} characters")
        upload_id = uuid_of(request.query_params.get("upload_id", ""))
        content = await body_of(request, settings.file_bytes, settings.upload_seconds)
        upload = Upload(upload_id, name or None, content, request.state.correlation_id)
        stored, new = await self._files.store(user, batch_id_of(request), upload)
        return JSONResponse(stored, 201 if new else 200)

    async def way(self, request: Request) -> Response:
        """Answers with the way of an upload through the system."""
        user = await self._bearers.user_of(request)
        return JSONResponse(await way_of(self._engine, loaded(), user, request.path_params["file_upload_id"]))
