"""Every example in README and manual runs, on real servers."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import httpx
import pytest
from alembic import context
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox import Settings, new_id, observe
from outbox.cli import main
from outbox.errors import Permanent
from outbox.huleedu.els import Assigned, assign_slot, register_batch
from outbox.huleedu.gateway import Gateway
from outbox.huleedu.migrate import upgrade
from outbox.message import Sent
from outbox.relay import Relay
from outbox.schema import in_schema
from outbox.schema.waking import CHANNEL
from outbox.settings import KafkaSettings, RedisSettings
from outbox.sinks.checking import Use
from tests.support import gateway as gateways
from tests.support.deliveries import delivery
from tests.support.huleedu import content, registration, written
from tests.support.kafka import Topics
from tests.support.manual import ROOT, blocks, example
from tests.support.migrations import Scripts, complaints, revisions, up_and_down
from tests.support.node import NODE
from tests.support.postgres import Cluster
from tests.support.sql import begun, connection, engine
from tests.support.waiting import PATIENCE, until

PROGRAMS = ("python", "sql", "js")
"""What a fenced block is written in that must run. Lines of `sh` and `console` run as commands, below."""

_LASTING = {"relay", "up", "huleedu"}
"""Commands that go on until they are stopped; their own tests run them."""


def test_every_program_in_the_pages_is_an_example_with_a_test() -> None:
    here = Path(__file__).read_text()
    for block in blocks():
        if block.language in PROGRAMS:
            assert block.name, f"{block.page.name}: {block.text[:80]}"
            assert f'"{block.name}"' in here, block.name


@pytest.fixture
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module."""
    made = ModuleType(f"example_{request.param}")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(compile(example(request.param), f"example: {request.param}", "exec"), made.__dict__)  # noqa: S102
    return made


@pytest.fixture
async def slots(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with tables of a service's own, which is that of the environment too."""
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)
    async with connection(database) as owner:
        await owner.execute(
            "CREATE TABLE slots (slot integer PRIMARY KEY, essay text);"
            "CREATE TABLE reminders (essay text); CREATE TABLE grades (essay text)"
        )
    return database


@pytest.mark.parametrize("module", ["adopt"], indirect=True)
async def test_a_service_adopts_it_in_ten_lines(module: ModuleType, slots: str) -> None:
    async with engine(slots) as made, AsyncSession(made) as session:
        await module.assign(session, 1, "essay-1")
    async with connection(slots) as reader:
        assert await reader.fetchval("SELECT essay FROM slots WHERE slot = 1") == "essay-1"
        assert await reader.fetchval("SELECT key FROM outbox_state WHERE state = 'ready'") == "essay-1"


@pytest.mark.parametrize("module", ["fastapi"], indirect=True)
async def test_a_service_writes_and_its_relay_delivers(
    module: ModuleType, slots: str, kafka: Topics, redis_url: str
) -> None:
    await kafka.create("slots")
    settings = Settings(
        database_url=SecretStr(slots),
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


async def test_one_person_is_erased_by_the_statements_of_the_page(huleedu_tables: str) -> None:
    async with engine(huleedu_tables) as made, made.begin() as session:
        await register_batch(session, registration("batch-1", 1, "teacher-1"), uuid4())
        for upload in ("upload-789", "upload-790"):
            name = f"Ada Lovelace {upload}.txt"
            await assign_slot(
                session,
                content(0, file_upload_id=upload, text_storage_id=upload, original_file_name=name),
            )
    async with connection(huleedu_tables) as owner:
        await owner.execute(
            "INSERT INTO ras_slots VALUES ('batch-1', 'e', 'upload-789', 'Ada', 0, now(), gen_random_uuid());"
            "INSERT INTO ras_batches VALUES ('batch-1', 'teacher-1', '{e}', null, now());"
            "DELETE FROM outbox_queue"  # as if a relay had been here
        )
        await owner.execute(example("erase_upload"))
        left = await everything(owner)
        assert "Ada Lovelace upload-789" not in left
        assert "Ada Lovelace upload-790" in left
        assert "teacher-1" in left
        await owner.execute(example("erase_user"))
        assert "teacher-1" not in await everything(owner)


async def everything(owner: Any) -> str:
    """All that the tables hold, as text."""
    tables = await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    found = [await owner.fetch(f"SELECT * FROM {table}") for (table,) in tables]
    return str([[dict(row) for row in rows] for rows in found])


@pytest.fixture
async def huleedu_tables(postgres: Cluster) -> AsyncIterator[str]:
    """A database with the outbox's tables and HuleEdu's."""
    async with postgres.database(template=await postgres.template(upgrade)) as url:
        yield url


@pytest.mark.parametrize("module", ["sync"], indirect=True)
def test_code_that_is_not_async_writes_too(module: ModuleType, slots: str) -> None:
    made = create_engine(slots.replace("postgresql://", "postgresql+psycopg://"))
    with Session(made) as session:
        assert module.remind(session, "essay-1") == 1
    made.dispose()


@pytest.mark.parametrize("module", ["sync_engine"], indirect=True)
def test_an_engine_that_is_not_async_reads_the_whole_address(module: ModuleType, slots: str) -> None:
    settings = Settings.model_validate({"database_url": f"{slots}?application_name=me&options=-cgeqo%3Doff"})
    made = module.engine_of(settings)
    with made.connect() as session:
        said = session.execute(
            text("SELECT current_setting('application_name'), current_setting('geqo')")
        ).one()
    made.dispose()
    assert tuple(said) == ("me", "off")


async def test_a_row_is_a_row(database: str) -> None:
    async with connection(database) as writer:
        heard: list[None] = []
        channel = await writer.fetchval(f"SELECT {in_schema(CHANNEL, None)}")
        await writer.add_listener(channel, lambda *_: heard.append(None))
        await writer.execute(example("sql"))
        await writer.execute(example("wake"))

        async def is_heard() -> bool:
            return len(heard) == 1

        await until(is_heard)
        assert await writer.fetchval("SELECT state FROM outbox_state") == "ready"


def test_a_services_own_alembic_would_drop_nothing_of_the_outbox(slots: str, tmp_path: Path) -> None:
    ours = MetaData()
    made = create_engine(slots.replace("postgresql://", "postgresql+psycopg://"))
    with made.connect() as session, EnvironmentContext(Config(), ScriptDirectory(str(tmp_path))):
        given = {"context": context, "connection": session, "target_metadata": ours}
        exec(example("alembic"), given)  # noqa: S102
        changes = compare_metadata(context.get_context(), ours)
    made.dispose()
    assert {(change[0], change[1].name) for change in changes} == {
        ("remove_table", name) for name in ("slots", "reminders", "grades")
    }


@pytest.mark.parametrize("module", ["inbox"], indirect=True)
async def test_a_consumer_acts_once(module: ModuleType, slots: str) -> None:
    message = uuid4()
    async with engine(slots) as made, AsyncSession(made) as session:
        assert [await module.consume(session, message, "essay-1") for _ in range(2)] == [True, False]
    async with connection(slots) as reader:
        assert await reader.fetchval("SELECT count(*) FROM grades") == 1


@pytest.mark.parametrize("module", ["prune"], indirect=True)
async def test_a_consumer_forgets_what_is_old(module: ModuleType, slots: str) -> None:
    async with begun(slots) as session:
        for days in (1, 15):
            await session.execute(
                text(
                    "INSERT INTO outbox_inbox (consumer, message_id, received_at)"
                    " VALUES ('grades', gen_random_uuid(), now() - make_interval(days => :days))"
                ),
                {"days": days},
            )
        assert await module.tidy(session) == 1


@pytest.mark.parametrize("module", ["sink"], indirect=True)
async def test_a_sink_of_ones_own(module: ModuleType, database: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("module", ["sink"], indirect=True)
def test_a_sink_of_ones_own_writes_nothing_outside_its_folder(module: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    sink = module.FileSink({"folder": str(folder)})
    good = [delivery("orders"), delivery("a.b-c_d")]
    outside = ["../x", "..", ".", "", "/x", str(tmp_path / "x"), "a/../../x", "sub/x", "a\0b", "x" * 300]
    outside += ["\n", "a\n", "~", "C:x", "..\\x", "ü" * 100]
    results = asyncio.run(sink.send([*map(delivery, outside), *good]))
    assert [type(result) for result in results] == [Permanent] * len(outside) + [Sent] * 2
    assert {file.relative_to(tmp_path) for file in tmp_path.rglob("*")} == {
        Path("notes"),
        Path("notes/orders"),
        Path("notes/a.b-c_d"),
    }


@pytest.mark.parametrize("module", ["sink_check"], indirect=True)
async def test_a_sink_of_ones_own_examines_its_folder(module: ModuleType, tmp_path: Path) -> None:
    class Examined:
        _folder = tmp_path
        check = module.check

    (found,) = await Examined().check(Use(destinations=["orders"]))
    assert (found.severity, found.remedy) == ("warning", f"touch {tmp_path / 'orders'}")
    (tmp_path / "orders").touch()
    assert await Examined().check(Use(destinations=["orders"])) == []


@pytest.mark.parametrize("module", ["gate"], indirect=True)
async def test_a_test_with_a_gate(module: ModuleType, database: str, tmp_path: Path) -> None:
    await module.check_that_a_refused_order_is_parked(database, tmp_path)


async def test_migrations_as_they_should_be(postgres: Cluster, empty_database: str, tmp_path: Path) -> None:
    scripts = Scripts(tmp_path / "migrations", first=1)
    for number, name in enumerate(("column", "index", "check", "validate"), start=2):
        scripts.write(f"{number:04}", example(name))
    for revision in revisions(scripts.migrations)[1:]:
        async with postgres.database() as url:
            assert await complaints(scripts.migrations, revision, url) == []
        before, after, *again = await up_and_down(scripts.migrations, revision, empty_database)
        assert again == [before, after]
        assert before != after


# HuleEdu


@pytest.mark.parametrize("module", ["els"], indirect=True)
async def test_an_assignment_writes_both_rows(
    module: ModuleType, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with postgres.database(template=await postgres.template(upgrade)) as url, engine(url) as made:
        monkeypatch.setenv("OUTBOX_DATABASE_URL", url)
        async with AsyncSession(made) as session:
            async with session.begin():
                await register_batch(session, registration(), uuid4())
            assert isinstance(await module.provisioned(session, content()), Assigned)
        kafka, redis = await written(made)
        assert (kafka.sink, redis.sink, kafka.message_id) == ("kafka", "redis", redis.message_id)


async def test_a_browser_is_told_of_a_slot(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    client = ROOT / "outbox" / "huleedu" / "client" / "dist" / "client.js"
    async with Gateway(gateways.settings(redis_url=redis_url)) as gateway:
        await gateways.until(lambda: gateway.ready)
        here = {
            "./client.js": client.as_uri(),
            "wss://gateway.example/ws": f"ws://127.0.0.1:{gateway.port}/ws",
            "/token": f"data:,{gateways.token()}",
            'url: "/"': 'url: "http://127.0.0.1:1/"',
        }
        program = example("browser")
        for written_there, is_here in here.items():
            program = program.replace(written_there, is_here)
        page = tmp_path / "page.mjs"
        page.write_text(
            "globalThis.updateFileStatus = (...told) => {\n"
            "  console.log(JSON.stringify(told));\n  process.exit();\n};\n" + program
        )
        process = await asyncio.create_subprocess_exec(NODE, str(page), stdout=asyncio.subprocess.PIPE)

        async def is_heard() -> bool:
            return bool(await redis.publish("ws:alice", _slot()))

        await until(is_heard)
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert json.loads(said) == ["upload-1", {"status": "assigned", "slotIndex": 3}]


def _slot() -> str:
    slot = {"batch_id": "batch-123", "essay_id": "essay-1", "file_upload_id": "upload-1", "slot_index": 3}
    data = {**slot, "filename": None, "text_storage_id": "text-1"}
    return json.dumps({"event": "essay_slot_assigned", "message_id": str(new_id()), "data": data})


# What operators type


@pytest.fixture
async def at_work(
    database: str, kafka: Topics, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[None]:
    """A relay has sent an order to Kafka, delivery 1, and parked a tombstone for Redis, delivery 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)
    monkeypatch.setenv("OUTBOX_KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
    monkeypatch.setenv("OUTBOX_REDIS_URL", redis_url)
    await kafka.create("orders")
    async with connection(database) as writer:
        await writer.execute("""
            INSERT INTO outbox (message_id, type, sink, destination, key, payload, headers) VALUES
            (gen_random_uuid(), 'order.placed', 'kafka', 'orders', 'k', '{}', '{"correlation_id": "c1"}'),
            (gen_random_uuid(), 'order.placed', 'redis', 'ws:ada', 'k', NULL, '{}')
        """)
    with observe.watch() as events:
        async with Relay():
            await events.wait_for("pump.settled", sink="kafka", delivered=1)
            await events.wait_for("delivery.parked", sink="redis")
            yield
    await kafka.delete("orders")


def _commands(language: str) -> Iterator[tuple[str, list[str]]]:
    """The commands in blocks of this language, each with the lines that the page says it prints."""
    for block in blocks():
        # What a newcomer plays has two relays of its own, and faults that nobody brings about here.
        if block.language != language or Path(block.page).name == "first-incident.md":
            continue
        for part in block.text.split("\n$ ") if language == "console" else block.text.splitlines():
            command, *printed = part.removeprefix("$ ").splitlines() or [""]
            words = shlex.split(command, comments=True)
            if words[:1] == ["outbox"] and words[1] not in _LASTING:
                yield shlex.join(words[1:]), printed


@pytest.mark.usefixtures("at_work")
async def test_every_command_does_something() -> None:
    for command, _ in _commands("sh"):
        result = await asyncio.to_thread(CliRunner().invoke, main, shlex.split(command))
        attention = command.startswith("status")
        assert result.exit_code in ((0, 1) if attention else (0,)), (command, result.output)


@pytest.mark.usefixtures("at_work")
async def test_every_command_prints_what_the_page_shows() -> None:
    for command, shown in _commands("console"):
        if command.startswith("doctor"):
            continue  # Here all is well.
        result = await asyncio.to_thread(CliRunner().invoke, main, shlex.split(command))
        assert _labels(result.output.splitlines()) == _labels(shown), command


def _labels(printed: list[str]) -> list[str]:
    """What each line begins with, but for names of relays."""
    labels = [line.partition("  ")[0] for line in printed if line.strip()]
    return ["a relay" if ":" in label else label for label in labels]


async def test_what_is_stuck_or_parked_is_asked_in_sql(database: str) -> None:
    async with connection(database) as operator:
        for statement in example("states").split(";\n"):
            assert await operator.fetch(statement) == []


async def test_a_transaction_that_stays_open_is_looked_at_and_ended(database: str) -> None:
    async with connection(database) as operator, connection(database) as writer:
        ended = asyncio.Event()
        writer.add_termination_listener(lambda _: ended.set())
        await writer.execute("BEGIN; SELECT pg_current_xact_id()")
        look, end, _ = example("writer").replace("4711", str(writer.get_server_pid())).split(";\n")
        assert (await operator.fetchrow(look))["state"] == "idle in transaction"
        assert await operator.fetchval(end)
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
