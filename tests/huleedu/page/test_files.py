"""Files on their way in: what is stored, what is told, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from outbox.huleedu.events import CONTENT_PROVISIONED
from outbox.huleedu.page.text import NotText, text_of
from tests.huleedu.page.conftest import StartPage
from tests.support.gateway import token
from tests.support.page import client, misfits, new_batch, stored_in, told_of, upload
from tests.support.waiting import PATIENCE


async def test_a_file_is_stored_and_told_of_in_one_transaction(
    start_page: StartPage, huleedu_database: str
) -> None:
    page = await start_page()
    batch, upload_id, content = await new_batch(page), uuid4(), "An essay on crème brûlée.\r\n".encode()
    async with client(page, token()) as http:
        answer = await upload(http, batch, content, upload_id=upload_id)
        file = {"file_upload_id": str(upload_id), "name": "essay.txt", "bytes": len(content)}
        assert answer.status_code == 201
        assert file.items() <= answer.json().items()
        assert (await http.get(f"/v1/batches/{batch}/files")).json() == {"files": [answer.json()]}
        assert (await http.get("/v1/batches")).json()["batches"][0]["files"] == 1
    (row,) = await stored_in(huleedu_database)
    assert (row["content"], row["text"]) == (content, content.decode())
    (event,) = await told_of(huleedu_database, CONTENT_PROVISIONED)
    assert misfits(CONTENT_PROVISIONED, event.body) == []
    assert (event.key, event.message_id) == (batch, str(row["message_id"]))
    assert event.body["correlation_id"] == answer.headers["X-Correlation-ID"] == str(row["correlation_id"])
    assert event.body["data"] == {
        "event": "essay.content.provisioned",
        "entity_id": batch,
        "file_upload_id": str(upload_id),
        "original_file_name": "essay.txt",
        "raw_file_storage_id": f"file-{upload_id}",
        "text_storage_id": f"text-{upload_id}",
        "file_size_bytes": len(content),
        "content_md5_hash": row["md5"],
        "correlation_id": event.body["correlation_id"],
        "timestamp": event.body["event_timestamp"],
    }


async def test_what_cannot_be_told_is_not_stored(start_page: StartPage, huleedu_database: str) -> None:
    page = await start_page()
    batch = await new_batch(page)
    connection = await asyncpg.connect(huleedu_database)
    async with client(page, token()) as http:
        await connection.execute("ALTER TABLE outbox RENAME TO away")
        assert (await upload(http, batch)).status_code == 503
        assert await stored_in(huleedu_database) == []
        await connection.execute("ALTER TABLE away RENAME TO outbox")
        assert (await upload(http, batch)).status_code == 201
    await connection.close()


async def test_the_same_upload_again_is_stored_once(start_page: StartPage, huleedu_database: str) -> None:
    page = await start_page()
    batch, other, upload_id = await new_batch(page), await new_batch(page), uuid4()
    async with client(page, token()) as http:
        answers = await asyncio.gather(*(upload(http, batch, upload_id=upload_id) for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [200] * 4 + [201]
        assert len({answer.text for answer in answers}) == 1
        assert (await upload(http, batch, b"Other words.", upload_id=upload_id)).status_code == 409
        assert (await upload(http, other, upload_id=upload_id)).status_code == 409
    assert len(await told_of(huleedu_database, CONTENT_PROVISIONED)) == 1


@pytest.mark.parametrize(
    "name", ["", "naïve “quotes” 'n' \\ / 🖋️.txt", "x" * 255, "<img src=x onerror=alert(1)>"]
)
async def test_a_name_may_be_anything(start_page: StartPage, huleedu_database: str, name: str) -> None:
    page = await start_page()
    batch = await new_batch(page)
    async with client(page, token()) as http:
        assert (await upload(http, batch, name=name)).json()["name"] == (name or None)
    (event,) = await told_of(huleedu_database, CONTENT_PROVISIONED)
    assert event.body["data"]["original_file_name"] == (name or None)


@pytest.mark.parametrize(
    ("changed", "status", "complaint"),
    [
        ({"name": "x" * 256}, 422, "name: at most 255 characters"),
        ({"upload_id": "1"}, 422, "upload_id: must be a UUID"),
        ({"content": b"x" * 101}, 413, "It is too large, at most 100 bytes are taken"),
        ({"content": b""}, 415, "There is nothing in it"),
        ({"content": b"%PDF-1.7"}, 415, "It is a PDF; save the essay as plain text"),
    ],
)
async def test_what_is_no_essay_is_refused(
    start_page: StartPage, huleedu_database: str, changed: dict[str, Any], status: int, complaint: str
) -> None:
    page = await start_page(file_bytes=100)
    batch = await new_batch(page)
    async with client(page, token()) as http:
        answer = await upload(http, batch, **changed)
    assert (answer.status_code, answer.json()) == (status, {"error": complaint})
    assert await stored_in(huleedu_database) == []


async def test_no_more_is_read_than_is_allowed(start_page: StartPage) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1_000
            yield b"x" * 1_000
            await asyncio.sleep(0)

    page = await start_page(file_bytes=5_000)
    batch = await new_batch(page)
    async with client(page, token()) as http:
        # The answer comes in the midst of the sending, and may be lost with the connection.
        with suppress(httpx.TransportError):
            assert (await upload(http, batch, endless())).status_code == 413
    assert sent < 10_000_000


async def test_who_sends_too_slowly_is_told_so(start_page: StartPage) -> None:
    page = await start_page(upload_seconds=0.1)
    batch = await new_batch(page)
    head = (
        f"POST /v1/batches/{batch}/files?upload_id={uuid4()} HTTP/1.1\r\nHost: page\r\n"
        f"Authorization: Bearer {token()}\r\nContent-Length: 10\r\n\r\nAn"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    writer.write(head.encode())
    assert b" 408 " in await asyncio.wait_for(reader.readline(), PATIENCE)
    writer.close()


async def test_the_files_of_a_batch_are_limited_even_at_once(
    start_page: StartPage, huleedu_database: str
) -> None:
    page = await start_page(files_per_batch=4)
    batch = await new_batch(page)
    async with client(page, token()) as http:
        answers = await asyncio.gather(*(upload(http, batch) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [409] * 6
    assert len(await told_of(huleedu_database, CONTENT_PROVISIONED)) == 4


async def test_only_the_owner_may_add_or_look(start_page: StartPage, huleedu_database: str) -> None:
    page = await start_page()
    batch = await new_batch(page, "alice")
    async with client(page, token("bob")) as http:
        for answer in (await upload(http, batch), await http.get(f"/v1/batches/{batch}/files")):
            assert (answer.status_code, answer.json()) == (403, {"error": "It is not your batch"})
        for missing in ("missing", "mis%00sing"):
            for answer in (await upload(http, missing), await http.get(f"/v1/batches/{missing}/files")):
                assert (answer.status_code, answer.json()) == (404, {"error": "Batch not found"})
    assert await stored_in(huleedu_database) == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"plain", "plain"),
        ("åäö\t☃\f\n".encode(), "åäö\t☃\f\n"),
        ("with a mark".encode("utf-8-sig"), "with a mark"),
        ("Notepad's “Unicode”".encode("utf-16"), "Notepad's “Unicode”"),
    ],
)
def test_text_is_read(content: bytes, text: str) -> None:
    assert text_of(content) == text


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"PK\x03\x04docx", "It is a Word document or another archive"),
        (b"\xd0\xcf\x11\xe0doc", "It is an old Word document"),
        (b"\x89PNG\r\n", "It is a picture"),
        (rb"{\rtf1 essay}", "It is a rich text document"),
        ("åäö".encode("latin-1"), "It is no text, or not in UTF-8"),
        (b"\xff\xfea", "It is no text, or not in UTF-8"),
        (b"an\0essay", "It is no text"),
        (b"\x7fELF\x02", "It is no text"),
        (b" \n\t", "There is nothing in it"),
        (b"\xef\xbb\xbf", "There is nothing in it"),
    ],
)
def test_what_is_no_text_is_told(content: bytes, complaint: str) -> None:
    with pytest.raises(NotText, match=complaint):
        text_of(content)
