"""What is told of an upload's way through the system."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

import asyncpg

from outbox.devstack import Postgres
from outbox.devstack.postgres import wheel_binaries
from outbox.huleedu.els import assign_slot, register_batch
from outbox.huleedu.events import (
    CONTENT_PROVISIONED,
    SLOT_ASSIGNED,
    BatchEssaysRegistered,
    EssayContentProvisionedV1,
)
from outbox.huleedu.migrate import upgrade
from outbox.huleedu.page import Page
from tests.huleedu.page.conftest import StartPage
from tests.support.gateway import token
from tests.support.huleedu import engine_on, written
from tests.support.page import client, new_batch, page_settings, upload
from tests.support.postgres import migrate


async def assign(url: str) -> None:
    """What ELS does with everything that the page has told."""
    engine = engine_on(url)
    async with engine.begin() as connection:
        for each in await written(connection):
            if each.type == CONTENT_PROVISIONED:
                await assign_slot(connection, EssayContentProvisionedV1.model_validate(each.body["data"]))
            else:
                batch = BatchEssaysRegistered.model_validate(each.body["data"])
                await register_batch(connection, batch, uuid4())
    await engine.dispose()


async def test_each_message_with_its_times(start_page: StartPage, huleedu_database: str) -> None:
    page = await start_page()
    batch, upload_id = await new_batch(page), uuid4()
    async with client(page, token()) as http:
        await upload(http, batch, upload_id=upload_id)
        await upload(http, batch)
        await assign(huleedu_database)
        way = (await http.get(f"/v1/uploads/{upload_id}/way")).json()
    own, slot = way["messages"]
    assert (way["name"], own["type"], slot["type"]) == ("essay.txt", CONTENT_PROVISIONED, SLOT_ASSIGNED)
    assert [each["sink"] for each in slot["deliveries"]] == ["kafka", "redis"]
    assert {each["state"] for each in (*own["deliveries"], *slot["deliveries"])} == {"ready"}
    times = [each[name] for each in (own, slot) for name in ("written_at", "committed_at")] + [way["now"]]
    moments = [datetime.fromisoformat(time) for time in times]
    assert moments == sorted(moments)


async def test_what_became_of_each_delivery(start_page: StartPage, huleedu_database: str) -> None:
    page = await start_page()
    batch, upload_id = await new_batch(page), uuid4()
    async with client(page, token()) as http:
        await upload(http, batch, upload_id=upload_id)
        connection = await asyncpg.connect(huleedu_database)
        await connection.execute(
            "WITH done AS (DELETE FROM outbox_queue RETURNING id)"
            " INSERT INTO outbox_receipts (id, outcome, attempts, partition, partition_offset)"
            " SELECT id, 'delivered', 0, 2, 41 FROM done"
        )
        await connection.close()
        way = (await http.get(f"/v1/uploads/{upload_id}/way")).json()
    (delivery,) = way["messages"][0]["deliveries"]
    assert (delivery["state"], delivery["partition"], delivery["offset"]) == ("delivered", 2, 41)
    assert delivery["settled_at"] > way["messages"][0]["committed_at"]


async def test_only_the_owner_is_told(start_page: StartPage) -> None:
    page = await start_page()
    batch, upload_id = await new_batch(page, "alice"), uuid4()
    async with client(page, token("alice")) as http:
        await upload(http, batch, upload_id=upload_id)
        assert (await http.get(f"/v1/uploads/{uuid4()}/way")).status_code == 404
        assert (await http.get("/v1/uploads/x/way")).status_code == 404
    async with client(page, token("bob")) as http:
        answer = await http.get(f"/v1/uploads/{upload_id}/way")
        assert (answer.status_code, answer.json()) == (403, {"error": "It is not your upload"})


async def test_a_database_that_keeps_no_commit_times() -> None:
    async with Postgres(binaries=wheel_binaries(), settings={"fsync": "off"}) as postgres:
        await migrate(postgres.url)
        await migrate(postgres.url, upgrade)
        async with Page(page_settings(database_url=postgres.url)) as page:
            batch, upload_id = await new_batch(page), uuid4()
            async with client(page, token()) as http:
                await upload(http, batch, upload_id=upload_id)
                (message,) = (await http.get(f"/v1/uploads/{upload_id}/way")).json()["messages"]
    assert message["committed_at"] is None
    assert message["written_at"]
