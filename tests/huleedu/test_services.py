"""ELS and RAS as processes: probes, metrics, an end in good order; and the rights they need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy.engine import make_url

from outbox.cli import main
from outbox.huleedu.els.service import Els
from outbox.huleedu.els.settings import ElsSettings
from outbox.huleedu.events import CONTENT_PROVISIONED, ESSAYS_REGISTERED, TOPICS
from outbox.schema.grants import grants
from tests.support.huleedu import CREDENTIALS, content, engine_on, event, record, registration, written
from tests.support.kafka import Topics
from tests.support.producing import produce
from tests.support.relay_process import RelayProcess
from tests.support.waiting import until

Start = Callable[..., Awaitable[tuple[RelayProcess, httpx.AsyncClient]]]


@pytest.fixture
async def start(huleedu_database: str, kafka: Topics, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts `outbox huleedu els` or `ras`; gives the process and a client of its HTTP."""
    for topic in TOPICS:
        await kafka.create_if_missing(topic, partitions=3)
    started: list[tuple[RelayProcess, httpx.AsyncClient]] = []

    async def start(service: str, **settings: str) -> tuple[RelayProcess, httpx.AsyncClient]:
        values = {
            "DATABASE_URL": huleedu_database,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "KAFKA_GROUP": f"{service}-{uuid4()}",
            "LOG_FORMAT": "json",
            "PORT": "0",
            **settings,
        }
        environment = {f"{service.upper()}_{name}": value for name, value in values.items()}
        process = await RelayProcess.start(environment, tmp_path, command=f"huleedu {service}")
        port = (await process.event("service.started"))["port"]
        started.append((process, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}")))
        return started[-1]

    yield start
    for process, client in started:
        await client.aclose()
        process.kill()
        await process.exited()


async def test_els_as_a_process(start: Start, kafka: Topics, huleedu_database: str) -> None:
    process, http = await start("els", LOG_LEVEL="debug")
    batch = f"batch-{uuid4()}"
    trace, span = uuid4().hex, uuid4().hex[:16]
    context = {"traceparent": f"00-{trace}-{span}-01"}
    registered = event(ESSAYS_REGISTERED, registration(batch))
    uploaded = event(CONTENT_PROVISIONED, content(batch_id=batch), metadata=context)
    await produce(kafka.bootstrap, ESSAYS_REGISTERED, registered, key=batch)
    # The topics hold what other tests have said, too.
    await process.event("event.applied", message_id=registered["event_id"], outcome="registered")
    await produce(kafka.bootstrap, CONTENT_PROVISIONED, uploaded, key=batch)
    applied = await process.event("event.applied", message_id=uploaded["event_id"])
    told = await process.event("els.published", batch_id=batch)
    assert (told["channel"], told["essay_id"]) == ("ws:teacher-1", f"{batch}/essay-0")
    assert "essay 0.txt" not in str(process.lines)
    assert (applied["outcome"], applied["service.name"]) == ("assigned", "essay-lifecycle-service")
    assert applied["correlation_id"] == uploaded["correlation_id"]
    assert (applied["trace_id"], applied["span_id"]) == (trace, span)
    assert (await http.get("/livez")).text == "ok\n"
    assert (await http.get("/readyz")).json() == {"ready": True, "reasons": []}
    assert 'els_events_total{outcome="assigned"' in (await http.get("/metrics")).text
    process.terminate()
    assert await process.exited() == 0
    assert process.lines[-1]["event"] == "service.stopped"
    engine = engine_on(huleedu_database)
    sinks = [
        each.sink
        for each in await written(engine)
        if each.headers.get("traceparent") == context["traceparent"]
    ]
    assert sinks == ["kafka", "redis"]
    await engine.dispose()


async def test_ras_as_a_process(start: Start, kafka: Topics) -> None:
    process, http = await start(
        "ras",
        INTERNAL_API_KEY=CREDENTIALS["X-Internal-API-Key"],
        ALLOWED_SERVICE_IDS=CREDENTIALS["X-Service-ID"],
    )
    batch = f"batch-{uuid4()}"
    await produce(
        kafka.bootstrap, ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, registration(batch)), key=batch
    )

    async def answers() -> bool:
        response = await http.get(f"/internal/v1/batches/{batch}/status", headers=CREDENTIALS)
        return response.status_code == 200

    await until(answers)
    assert (await http.get("/readyz")).json() == {"ready": True, "reasons": [], "consumer": []}
    assert (await http.get("/openapi.json")).json()["info"]["title"] == "Result Aggregator Service"
    metrics = (await http.get("/metrics")).text
    assert 'ras_requests_total{status="200"}' in metrics
    assert 'ras_events_total{outcome="applied"' in metrics
    assert CREDENTIALS["X-Internal-API-Key"] not in str(process.lines)
    process.terminate()
    assert await process.exited() == 0


async def test_a_service_beside_a_cluster_s_link_of_its_name_says_which_port_it_takes(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("ELS_PORT=0\n")
    process, _ = await start("els", PORT="tcp://10.96.0.7:8083")
    assert process.lines[0]["event"].startswith("ELS_PORT=tcp://10.96.0.7:8083 is a cluster's link")
    assert process.lines[0]["level"] == "warning"


async def test_els_needs_no_more_rights_than_those_of_a_writer_and_consumer(huleedu_database: str) -> None:
    role = f"els_{uuid4().hex[:8]}"
    owner = await asyncpg.connect(huleedu_database)
    await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'els'")
    for statement in (*grants("writer", role), *grants("consumer", role)):
        await owner.execute(statement)
    for table in ("els_batches", "els_slots", "els_contents", "huleedu_parked_input"):
        await owner.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}")
    url = make_url(huleedu_database).set(username=role, password="els")
    els = Els(
        ElsSettings(
            database_url=url.render_as_string(hide_password=False), kafka_bootstrap_servers="127.0.0.1:1"
        )
    )
    await els.receiver.receive(record(CONTENT_PROVISIONED, event(CONTENT_PROVISIONED, content())))
    await els.receiver.receive(record(ESSAYS_REGISTERED, event(ESSAYS_REGISTERED, registration())))
    await els.receiver.receive(record(ESSAYS_REGISTERED, b"?"))
    await els.engine.dispose()
    assert await owner.fetchval("SELECT count(*) FROM outbox") == 2
    assert await owner.fetchval("SELECT count(*) FROM huleedu_parked_input") == 1
    await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await owner.close()


@pytest.mark.parametrize("service", ["els", "ras"])
def test_settings_that_are_missing_are_named(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["huleedu", service])
    assert result.exit_code == 2
    assert f"{service.upper()}_DATABASE_URL: field required" in result.output
