"""The browser's way to RAS, to a real one."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from outbox.huleedu.events import ESSAYS_REGISTERED
from outbox.huleedu.ras import Ras
from tests.huleedu.page.conftest import StartPage
from tests.support.gateway import token
from tests.support.huleedu import API_KEY, event, record, registration
from tests.support.page import client, new_batch


async def test_the_owner_hears_what_ras_says(start_page: StartPage, ras: Ras) -> None:
    page = await start_page(ras_url=f"http://127.0.0.1:{ras.port}")
    async with client(page, token("alice")) as http:
        answer = await http.get("/v1/batches/batch-1/status")
        assert answer.status_code == 200
        assert answer.json()["essays"][0]["filename"] == "essay.txt"
        assert "user_id" not in answer.json()
        assert (await http.get("/v1/batches/batch-2/status")).json() == {"error": "Batch not found"}
        assert (await http.get("/v1/batches/..%2Fx%3F%23%00/status")).status_code == 404
    async with client(page, token("bob")) as http:
        answer = await http.get("/v1/batches/batch-1/status")
        assert (answer.status_code, answer.json()) == (403, {"error": "It is not your batch"})


@pytest.mark.parametrize("batch_id", ["a/b", "a b?x#y", "%2e", "../status", "end\n", "räksmörgås", "…" * 40])
async def test_a_batch_is_told_of_whatever_its_id_is(start_page: StartPage, ras: Ras, batch_id: str) -> None:
    page = await start_page(ras_url=f"http://127.0.0.1:{ras.port}")
    registered = event(ESSAYS_REGISTERED, registration(batch_id, user_id="alice"))
    await ras.receiver.receive(record(ESSAYS_REGISTERED, registered))
    async with client(page, token("alice")) as http:
        answer = await http.get(f"/v1/batches/{quote(batch_id, safe='')}/status")
        assert (answer.status_code, answer.json()["batch_id"]) == (200, batch_id)


@pytest.mark.parametrize("batch_id", [".", "..", "x" * 20_000])
async def test_what_is_no_id_is_no_batch_and_ras_is_not_asked(start_page: StartPage, batch_id: str) -> None:
    page = await start_page()
    path = f"/v1/batches/{batch_id}/status".replace(".", "%2E")
    async with client(page, token("alice")) as http:
        assert (await http.get(path)).json() == {"error": "Batch not found"}


async def test_what_is_no_answer_of_ras_is_told_as_none(start_page: StartPage) -> None:
    async def nothing(_: ServerConnection) -> None:
        pass

    def answer(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(HTTPStatus.OK, "<html>a proxy's own page</html>")

    async with serve(nothing, "127.0.0.1", 0, process_request=answer) as server:
        page = await start_page(ras_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with client(page, token("alice")) as http:
            assert (await http.get("/v1/batches/batch-1/status")).status_code == 503


async def test_a_batch_without_a_user_is_answered_to_who_created_it_here(
    start_page: StartPage, ras: Ras
) -> None:
    page = await start_page(ras_url=f"http://127.0.0.1:{ras.port}")
    mine, nobodys = await new_batch(page), "batch-9"
    for batch in (mine, nobodys):
        registered = event(ESSAYS_REGISTERED, registration(batch, user_id=None))
        await ras.receiver.receive(record(ESSAYS_REGISTERED, registered))
    async with client(page, token("alice")) as http:
        assert (await http.get(f"/v1/batches/{mine}/status")).json()["batch_id"] == mine
        assert (await http.get(f"/v1/batches/{nobodys}/status")).status_code == 403
    async with client(page, token("bob")) as http:
        assert (await http.get(f"/v1/batches/{mine}/status")).status_code == 403


@pytest.mark.parametrize(
    "wrong", [{"ras_url": "http://127.0.0.1:1"}, {"ras_api_key": "another key altogether"}]
)
async def test_without_ras_the_answer_says_so_and_nothing_more(
    start_page: StartPage, ras: Ras, wrong: dict[str, str]
) -> None:
    page = await start_page(**{"ras_url": f"http://127.0.0.1:{ras.port}", **wrong})
    async with client(page, token("alice")) as http:
        answer = await http.get("/v1/batches/batch-1/status")
    assert answer.status_code == 503
    assert answer.json() == {"error": "The results service does not answer, try again"}
    assert API_KEY not in str(answer.headers)
