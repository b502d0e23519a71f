"""The README's examples run, and its tables are what the code has."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from outbox import Settings, observe
from outbox.relay import Relay
from outbox.settings import KafkaSettings, RedisSettings, read
from tests.support.kafka import Topics
from tests.support.sql import begun, connection, engine

README = (Path(__file__).parent.parent / "README.md").read_text()


def example(name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, name
    return found[1]


@pytest.fixture
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType(f"readme_{request.param}")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(compile(example(request.param), f"README: {request.param}", "exec"), made.__dict__)  # noqa: S102
    return made


@pytest.mark.parametrize("module", ["fastapi"], indirect=True)
async def test_a_service_writes_and_its_relay_delivers(
    module: ModuleType, database: str, kafka: Topics, redis_url: str
) -> None:
    async with connection(database) as owner:
        await owner.execute("CREATE TABLE slots (slot integer PRIMARY KEY, essay text)")
    await kafka.create("slots")
    settings = Settings(
        database_url=SecretStr(database),
        kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap),
        redis=RedisSettings(url=SecretStr(redis_url)),
    )
    app = module.service(settings)
    transport = httpx.ASGITransport(app)
    with observe.watch() as events:
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
            answer = await client.post("http://test/slots/1", params={"essay": "essay-1", "user": "ada"})
            await events.wait_for("pump.settled", sink="redis", delivered=1)
            await events.wait_for("pump.settled", sink="kafka", delivered=1)
    (record,) = await kafka.read("slots")
    await kafka.delete("slots")
    assert record.headers["message_id"].decode() == answer.json()["message_id"]
    assert record.value == b'{"slot":1,"essay":"essay-1"}'


async def test_a_row_is_a_row(database: str) -> None:
    async with connection(database) as writer:
        await writer.execute(example("sql"))
        assert await writer.fetchval("SELECT state FROM outbox_state") == "ready"


@pytest.mark.parametrize("module", ["inbox"], indirect=True)
async def test_a_consumer_acts_once(
    module: ModuleType, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)
    async with begun(database) as owner:
        await owner.execute(text("CREATE TABLE grades (essay text)"))
    message = uuid4()
    async with engine(database) as made, AsyncSession(made) as session:
        assert [await module.consume(session, message, "essay-1") for _ in range(2)] == [True, False]
    async with connection(database) as reader:
        assert await reader.fetchval("SELECT count(*) FROM grades") == 1


@pytest.mark.parametrize("module", ["sink"], indirect=True)
async def test_a_third_sink(module: ModuleType, database: str, tmp_path: Path) -> None:
    settings = Settings(
        database_url=SecretStr(database),
        sinks=f"files={module.__name__}:FileSink",
        options={"files": {"folder": str(tmp_path)}},
    )
    async with connection(database) as writer:
        for payload in (b"one", b"two\nlines", b"three"):
            await writer.execute(
                "INSERT INTO outbox (message_id, type, sink, destination, key, payload)"
                " VALUES (gen_random_uuid(), 't', 'files', 'notes', 'k', $1)",
                payload,
            )
        with observe.watch() as events:
            async with Relay(settings):
                parked = await events.wait_for("delivery.parked")
                await events.wait_for("pump.settled", delivered=1, count=2)
    assert parked.fields["reason"] == "a line break in the payload"
    assert (tmp_path / "notes").read_bytes() == b"one\nthree\n"


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    told = dict(re.findall(r"^\| `(OUTBOX_\w+)` \| `?([^|`]*?)`? \|", README, re.MULTILINE))
    settings = {setting.variable: _shown(setting.value) for setting in read({}, Path("none")).listing()}
    assert told == {name: value for name, value in settings.items() if not _of_one_sink(name, settings)}


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _of_one_sink(name: str, settings: dict[str, str]) -> bool:
    """Whether it is what every sink has, for one of them."""
    return any(name == f"OUTBOX_{sink}_{each[7:]}" for sink in ("KAFKA", "REDIS") for each in settings)
