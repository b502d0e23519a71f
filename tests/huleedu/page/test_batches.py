"""Who somebody is, and the batches that are theirs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt
import pytest

from outbox.huleedu.events import CONTENT_PROVISIONED, ESSAYS_REGISTERED, EXCESS_CONTENT, SLOT_ASSIGNED
from tests.huleedu.page.conftest import StartPage
from tests.support.gateway import SECRET, claims, token
from tests.support.page import client, misfits, told_of

ASKED = {
    "batches": ("GET", "/v1/batches"),
    "a new batch": ("POST", "/v1/batches"),
    "files": ("GET", "/v1/batches/x/files"),
    "an upload": ("POST", "/v1/batches/x/files"),
    "a status": ("GET", "/v1/batches/x/status"),
    "a way": ("GET", "/v1/uploads/00000000-0000-0000-0000-000000000000/way"),
}
REFUSED = {
    "none": None,
    "no token": "nonsense",
    "expired": token(exp=int(time.time()) - 1),
    "of another audience": token(aud="another"),
    "of another issuer": token(iss="another"),
    "of nobody": token(sub=None),
    "without an end": token(exp=None),
    "of another key": jwt.encode(claims(), "another secret of more than 32 bytes", "HS256"),
    "unsigned": jwt.encode(claims(), "", "none"),
}


async def test_a_demo_user_gets_a_token_and_nobody_else(start_page: StartPage) -> None:
    page = await start_page(demo_users="ada, bo-2", token_seconds=60)
    async with client(page) as http:
        known = (await http.get("/v1/page")).json()
        assert known["users"] == ["ada", "bo-2"]
        assert known["limits"] == {"slots": 100, "file_bytes": 1_000_000, "file_name_characters": 255}
        assert set(known["topics"].values()) == {CONTENT_PROVISIONED, EXCESS_CONTENT, SLOT_ASSIGNED}
        answer = await http.post("/v1/demo/login", json={"user": "ada"})
        said = jwt.decode(
            answer.json()["token"],
            SECRET,
            ["HS256"],
            audience="huleedu-platform",
            issuer="huleedu-identity-service",
        )
        assert said["sub"] == "ada"
        assert said["exp"] == said["iat"] + 60
        refused = await http.post("/v1/demo/login", json={"user": "eve"})
        assert (refused.status_code, refused.json()) == (403, {"error": "Be one of ada, bo-2"})


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("why", REFUSED)
async def test_without_a_good_token_nothing_is_told(start_page: StartPage, what: str, why: str) -> None:
    async with client(await start_page(), REFUSED[why]) as http:
        answer = await http.request(*ASKED[what])
    assert answer.status_code == 401
    assert "token" in answer.json()["error"]


async def test_a_batch_is_registered_for_all_services(start_page: StartPage, huleedu_database: str) -> None:
    async with client(await start_page(), token("ada")) as http:
        wanted = {"slots": 3, "title": " Essays on 'x' 📝 ", "course_code": "ENG5"}
        answer = await http.post("/v1/batches", json=wanted)
        batch = answer.json()
        assert answer.status_code == 201
        assert (batch["title"], batch["slots"], batch["files"]) == ("Essays on 'x' 📝", 3, 0)
        other = (await http.post("/v1/batches", json={"slots": 1})).json()
        assert (await http.get("/v1/batches")).json() == {"batches": [other, batch]}
    registered, _ = await told_of(huleedu_database, ESSAYS_REGISTERED)
    assert misfits(ESSAYS_REGISTERED, registered.body) == []
    assert (registered.sink, registered.destination, registered.key) == (
        "kafka",
        ESSAYS_REGISTERED,
        batch["batch_id"],
    )
    data = registered.body["data"]
    assert (data["entity_id"], data["user_id"], data["course_code"]) == (batch["batch_id"], "ada", "ENG5")
    assert len(set(data["essay_ids"])) == data["expected_essay_count"] == 3
    assert registered.body["event_id"] == registered.message_id
    assert registered.body["source_service"] == registered.headers["source_service"]
    assert registered.body["correlation_id"] == answer.headers["X-Correlation-ID"]


async def test_each_user_has_their_own(start_page: StartPage) -> None:
    page = await start_page()
    async with client(page, token("ada")) as http:
        await http.post("/v1/batches", json={"slots": 1})
    async with client(page, token("bo")) as http:
        assert (await http.get("/v1/batches")).json() == {"batches": []}


@pytest.mark.parametrize(
    ("wanted", "status", "complaint"),
    [
        ({"slots": 0}, 422, "slots: Input should be greater than or equal to 1"),
        ({"slots": 101}, 422, "slots: a batch has at most 100"),
        ({"slots": "many"}, 422, "slots: Input should be a valid integer"),
        ({}, 422, "slots: Field required"),
        ({"slots": 1, "title": "x" * 101}, 422, "title: String should have at most 100 characters"),
        ({"slots": 1, "title": "a\0b"}, 422, "title: "),
        ({"slots": 1, "colour": "red"}, 422, "colour: Extra inputs are not permitted"),
        ({"slots": 1, "title": "x" * 5_000}, 413, "It is too large, at most 4,096 bytes are taken"),
        ([], 422, "Input should be an object"),
    ],
)
async def test_what_is_no_batch_is_refused(
    start_page: StartPage, wanted: Any, status: int, complaint: str
) -> None:
    async with client(await start_page(), token()) as http:
        answer = await http.post("/v1/batches", json=wanted)
        assert (answer.status_code, answer.json()["error"][: len(complaint)]) == (status, complaint)
        assert (await http.get("/v1/batches")).json() == {"batches": []}


async def test_what_is_no_json_is_refused(start_page: StartPage) -> None:
    async with client(await start_page(), token()) as http:
        assert (await http.post("/v1/batches", content=b'{"slots": 1}')).status_code == 415
        headers = {"Content-Type": "application/json"}
        assert (await http.post("/v1/batches", content=b"{", headers=headers)).status_code == 422


async def test_the_batches_of_a_user_are_limited_even_at_once(start_page: StartPage) -> None:
    page = await start_page(batches_per_user=3)
    async with client(page, token("ada")) as http:
        answers = await asyncio.gather(*(http.post("/v1/batches", json={"slots": 1}) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
        assert answers[-1].status_code == 201 or "no more are kept" in answers[-1].json()["error"]
        assert len((await http.get("/v1/batches")).json()["batches"]) == 3
    async with client(page, token("bo")) as http:
        assert (await http.post("/v1/batches", json={"slots": 1})).status_code == 201
