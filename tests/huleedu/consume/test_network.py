"""Networks that swallow, and poolers, between a service and its database."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import httpx
import pytest

from outbox.huleedu import database
from outbox.huleedu.database import engine_of
from outbox.huleedu.els.service import Els
from outbox.huleedu.els.settings import ElsSettings
from outbox.huleedu.events import CONTENT_PROVISIONED, ESSAYS_REGISTERED, SLOT_ASSIGNED
from outbox.huleedu.ras import Ras
from tests.huleedu.consume.conftest import column, records
from tests.huleedu.ras.test_record import known, slot
from tests.support import programs, servers
from tests.support.huleedu import content, event, ras_settings, record, registration
from tests.support.pgbouncer import PgBouncer
from tests.support.swallowing import swallowing
from tests.support.waiting import PATIENCE


async def test_a_database_connection_that_a_network_swallowed_is_noticed_within_seconds(
    huleedu_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_STATEMENT_SECONDS", 1.0)
    url = httpx.URL(huleedu_database)
    async with swallowing(url.host, url.port or 5432) as way:
        through = huleedu_database.replace(f":{url.port}/", f":{way.port}/").replace(url.host, "127.0.0.1")
        ras = Ras(ras_settings(through))
        body = event(ESSAYS_REGISTERED, registration())
        async with asyncio.timeout(PATIENCE):
            await ras.receiver.receive(record(ESSAYS_REGISTERED, body))
            way.swallow()
            for offset in range(1, 9):
                with_next = event(ESSAYS_REGISTERED, registration(f"b-{offset}"))
                try:
                    await ras.receiver.receive(record(ESSAYS_REGISTERED, with_next, offset))
                except database.DATABASE_ERRORS:
                    continue
                break
            else:
                pytest.fail("never noticed")
        await ras.engine.dispose()


async def test_what_nobody_acknowledges_is_given_up_by_the_kernel_too(huleedu_database: str) -> None:
    engine = engine_of(ras_settings(huleedu_database))
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        connected = raw.driver_connection._transport.get_extra_info("socket")
        if connected.family == socket.AF_UNIX:
            pytest.fail("the tests' database is asked over TCP")
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
    await engine.dispose()


async def test_els_and_ras_work_behind_pgbouncer(huleedu_database: str) -> None:
    program = programs.find("pgbouncer")
    if program is None:
        servers.missing("pgbouncer is not installed")
    async with AsyncExitStack() as stack:
        pooler = await servers.start(stack, lambda: PgBouncer(program, huleedu_database))
        pooled = {"database_url": pooler.url, "database_pooler": "transaction"}
        els = Els(ElsSettings.model_validate({**pooled, "kafka_bootstrap_servers": "127.0.0.1:1"}))
        ras = Ras(ras_settings(pooler.url, database_pooler="transaction"))
        registered = records(ESSAYS_REGISTERED, *(event(ESSAYS_REGISTERED, registration(n)) for n in "ab"))
        uploads = [event(CONTENT_PROVISIONED, content(number, "a")) for number in range(4)]
        for _ in range(2):
            # Each on whichever connection of the pooler's there is.
            await asyncio.gather(*(each.receiver.receive(*registered) for each in (els, ras)))
            await els.receiver.receive(*records(CONTENT_PROVISIONED, *uploads))
        await ras.receiver.receive(record(SLOT_ASSIGNED, event(SLOT_ASSIGNED, slot("a", 0))))
        assert (await known(ras.engine, "a")).essays[0].file_upload_id == "upload-0"
        assert await column(els.engine, "SELECT count(*) FROM els_slots WHERE state = 'assigned'") == [3]
        assert await column(els.engine, "SELECT count(*) FROM pg_prepared_statements") == [0]
        for each in (els, ras):
            await each.engine.dispose()


async def test_without_kafka_els_is_not_ready_and_ras_is_and_says_it(els: Els, ras: Ras) -> None:
    found = []
    for service in (els, ras):
        transport = httpx.ASGITransport(service.application())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/readyz")
        found.append((answer.status_code, answer.json()))
    why = ["kafka: not connected yet"]
    assert found == [
        (503, {"ready": False, "reasons": why}),
        (200, {"ready": True, "reasons": [], "consumer": why}),
    ]
