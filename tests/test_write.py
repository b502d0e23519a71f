from __future__ import annotations

import asyncio
import io
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from outbox import ConflictError, Message, MessageError, OutboxError, SchemaError, new_id, write, write_sync
from outbox.settings import Settings, loaded
from outbox.write import _process_encoder
from tests.support import sql
from tests.support.waiting import BOUNDED


def slot(number: int = 0, **changes: Any) -> Message:
    values: dict[str, Any] = {
        "type": "essay.slot.assigned",
        "sink": "kafka",
        "destination": "slots",
        "key": "batch-1",
        "payload": {"slot": number},
    }
    return Message(**values | changes)


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    async with sql.engine(database) as made:
        async with made.begin() as connection:
            await connection.execute(text("CREATE TABLE orders (id integer PRIMARY KEY)"))
        yield made


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as made:
        yield made


@pytest.fixture
async def observer(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as made:
        yield made


@pytest.fixture
def sync_engine(database: str) -> Iterator[Engine]:
    made = create_engine(make_url(database).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    yield made
    made.dispose()


@contextmanager
def closing_scope(scope: scoped_session[Session]) -> Iterator[scoped_session[Session]]:
    yield scope
    scope.remove()


async def order(session: AsyncSession, number: int) -> None:
    await session.execute(text("INSERT INTO orders VALUES (:id)"), {"id": number})


async def counts(observer: asyncpg.Connection) -> tuple[int, int, int]:
    """Business rows, rows of the outbox, and rows in its queue."""
    return tuple(
        await observer.fetchrow(
            "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM outbox),"
            " (SELECT count(*) FROM outbox_queue)"
        )
    )


# One transaction


async def test_rows_exist_from_the_commit_on(session: AsyncSession, observer: asyncpg.Connection) -> None:
    await order(session, 1)
    assert await write(session, slot(), slot(1)) == 2
    assert await counts(observer) == (0, 0, 0)
    await session.commit()
    assert await counts(observer) == (1, 2, 2)


async def test_a_rollback_takes_them_with_it(session: AsyncSession, observer: asyncpg.Connection) -> None:
    await order(session, 1)
    await write(session, slot())
    await session.rollback()
    assert await counts(observer) == (0, 0, 0)


async def test_a_savepoint_takes_what_was_written_in_it(
    session: AsyncSession, observer: asyncpg.Connection
) -> None:
    await order(session, 1)
    await write(session, slot(1))
    savepoint = await session.begin_nested()
    await order(session, 2)
    await write(session, slot(2))
    await savepoint.rollback()
    await session.commit()
    assert await counts(observer) == (1, 1, 1)
    assert await observer.fetchval("SELECT payload FROM outbox") == b'{"slot":1}'


async def test_a_refused_message_leaves_the_transaction_usable(
    session: AsyncSession, observer: asyncpg.Connection
) -> None:
    await order(session, 1)
    with pytest.raises(MessageError, match="message 2 of 2: destination '' is empty"):
        await write(session, slot(), slot(destination=""))
    await session.commit()
    assert await counts(observer) == (1, 0, 0)


async def test_writing_nothing_asks_the_database_nothing(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        assert await write(session) == 0
        assert not session.in_transaction()


@pytest.mark.parametrize("strict_order", [False, True])
async def test_autocommit_is_always_refused(
    database: str, engine: AsyncEngine, observer: asyncpg.Connection, *, strict_order: bool
) -> None:
    async with (
        sql.engine(database, isolation_level="AUTOCOMMIT") as other,
        AsyncSession(other) as session,
        other.connect() as connection,
        engine.connect() as changed,
    ):
        await changed.execution_options(isolation_level="AUTOCOMMIT")
        for each in (session, connection, changed):
            with pytest.raises(OutboxError, match="this connection is in autocommit"):
                await write(each, slot(), strict_order=strict_order)
    assert await counts(observer) == (0, 0, 0)


# What is written


async def test_every_column_is_kept(session: AsyncSession, observer: asyncpg.Connection) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    message = slot(
        message_id=new_id(),
        payload=b"\x00\xff",
        headers={"correlation_id": "c", "ü": "🎓"},
        available_at=later,
        expires_at=later + timedelta(hours=1),
    )
    await write(session, message)
    await session.commit()
    row = await observer.fetchrow("SELECT * FROM outbox")
    assert row["message_id"] == message.message_id
    assert row["payload"] == message.payload
    assert (row["type"], row["sink"], row["destination"], row["key"]) == (
        "essay.slot.assigned",
        "kafka",
        "slots",
        "batch-1",
    )
    assert await observer.fetchval("SELECT headers ->> 'ü' FROM outbox") == "🎓"
    assert (row["available_at"], row["expires_at"]) == (message.available_at, message.expires_at)
    assert row["replay_id"] is None
    assert await observer.fetchval("SELECT due_at FROM outbox_queue") == later


async def test_many_messages_are_one_statement_in_their_order(
    engine: AsyncEngine, session: AsyncSession, observer: asyncpg.Connection
) -> None:
    await session.connection()
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert await write(session, *(slot(number, key=None) for number in range(2_000))) == 2_000
    await session.commit()
    assert len(statements) == 1
    rows = await observer.fetch("SELECT payload FROM outbox ORDER BY id")
    assert [row["payload"] for row in rows] == [f'{{"slot":{number}}}'.encode() for number in range(2_000)]


async def test_ids_made_later_sort_later(session: AsyncSession, observer: asyncpg.Connection) -> None:
    await write(session, *(slot(number) for number in range(100)))
    await session.commit()
    ids = [row["message_id"] for row in await observer.fetch("SELECT message_id FROM outbox ORDER BY id")]
    assert ids == sorted(ids)
    assert {UUID(str(found)).version for found in ids} == {7}


@pytest.mark.parametrize(
    "make",
    [
        AsyncSession,
        AsyncEngine.connect,
        lambda engine: async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: None),
    ],
    ids=["AsyncSession", "AsyncConnection", "async_scoped_session"],
)
async def test_every_kind_of_async_session_will_do(
    make: Callable[[AsyncEngine], Any], engine: AsyncEngine, observer: asyncpg.Connection
) -> None:
    session = make(engine)
    inner = session() if isinstance(session, async_scoped_session) else session
    if isinstance(session, AsyncConnection):
        await session.start()
    assert await write(session, slot()) == 1
    assert await inner.run_sync(lambda sync: write_sync(sync, slot())) == 1
    assert (await counts(observer))[1] == 0
    await session.commit()
    await session.close()
    assert (await counts(observer))[1] == 2


async def test_what_is_no_session_of_its_kind_is_refused_with_the_function_to_use(
    engine: AsyncEngine, sync_engine: Engine
) -> None:
    with pytest.raises(OutboxError, match="got a Session; perhaps you want write_sync"):
        await write(Session(sync_engine), slot())  # type: ignore[arg-type]  # as who has no checker does
    with pytest.raises(OutboxError, match="got a AsyncSession; perhaps you want write"):
        write_sync(AsyncSession(engine), slot())  # type: ignore[arg-type]  # as who has no checker does


@pytest.mark.parametrize(
    "make",
    [Session, Engine.connect, lambda engine: closing_scope(scoped_session(sessionmaker(engine)))],
    ids=["Session", "Connection", "scoped_session"],
)
async def test_write_sync_does_the_same(
    make: Callable[[Engine], Any], sync_engine: Engine, observer: asyncpg.Connection
) -> None:
    message = slot(message_id=new_id(), expires_at=datetime.now(UTC) + timedelta(minutes=1))

    def written() -> list[int]:
        with make(sync_engine) as session:
            counted = [
                write_sync(session, message, slot(key=None, sink="redis"), strict_order=True),
                write_sync(session, message),
            ]
            with pytest.raises(ConflictError):
                write_sync(session, slot(message_id=message.message_id, payload="else"))
            session.commit()
            return counted

    assert await asyncio.to_thread(written) == [2, 0]
    assert await observer.fetchval("SELECT count(*) FROM outbox_queue") == 2


# The same message again


@pytest.mark.parametrize("payload", [{"slot": 1}, b"", None, "text"])
async def test_the_same_again_is_not_written(session: AsyncSession, payload: Any) -> None:
    message = slot(message_id=new_id(), payload=payload)
    assert await write(session, message) == 1
    assert await write(session, message, slot(2)) == 1
    await session.commit()
    assert await write(session, message) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"payload": {"slot": 2}},
        {"payload": None},
        {"payload": b""},
        {"key": "batch-2"},
        {"key": None},
        {"type": "t"},
    ],
    ids=str,
)
async def test_the_same_id_with_other_content_is_an_error(
    session: AsyncSession, change: dict[str, Any]
) -> None:
    message_id = new_id()
    await write(session, slot(1, message_id=message_id))
    await session.commit()
    with pytest.raises(ConflictError, match=rf"message_id {message_id}, kafka 'slots': already written"):
        await write(session, slot(), slot(**{"payload": {"slot": 1}} | change, message_id=message_id))


async def test_other_headers_and_times_are_the_same_message(session: AsyncSession) -> None:
    message_id = new_id()
    await write(session, slot(message_id=message_id))
    again = slot(message_id=message_id, headers={"traceparent": "x"}, available_at=datetime.now(UTC))
    assert await write(session, again) == 0


async def test_one_id_to_two_destinations_is_two_rows(session: AsyncSession) -> None:
    message_id = new_id()
    both = slot(message_id=message_id), slot(message_id=message_id, sink="redis", destination="ws:1")
    assert await write(session, *both) == 2
    assert await write(session, *both) == 0


async def test_twice_in_one_call_is_once(session: AsyncSession) -> None:
    message = slot(message_id=new_id())
    assert await write(session, message, message) == 1
    with pytest.raises(ConflictError):
        await write(
            session,
            slot(message_id=new_id()),
            slot(1, message_id=(same := new_id())),
            slot(2, message_id=same),
        )


@pytest.mark.parametrize(("ending", "new"), [("commit", 0), ("rollback", 1)])
async def test_it_waits_for_another_writer_of_the_same_id(
    engine: AsyncEngine, observer: asyncpg.Connection, ending: str, new: int
) -> None:
    message = slot(message_id=new_id())
    async with AsyncSession(engine) as first, AsyncSession(engine) as second:
        await write(first, message)
        pid = await sql.pid_of(second)
        waiting = asyncio.create_task(write(second, message))
        await sql.blocked(observer, pid)
        await getattr(first, ending)()
        assert await waiting == new
        await second.commit()
    assert await observer.fetchval("SELECT count(*) FROM outbox") == 1


async def test_under_repeatable_read_a_message_that_cannot_be_seen_fails(engine: AsyncEngine) -> None:
    message = slot(message_id=new_id())
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    async with AsyncSession(repeatable) as late, AsyncSession(engine) as early:
        await late.execute(text("SELECT 1 FROM outbox"))
        await write(early, message)
        await early.commit()
        with pytest.raises(DBAPIError, match="could not serialize"):
            await write(late, message)


async def test_an_id_that_is_taken_is_no_silent_loss(
    session: AsyncSession, observer: asyncpg.Connection
) -> None:
    await write(session, slot())
    await session.commit()
    await observer.execute("ALTER SEQUENCE outbox_id_seq RESTART")
    with pytest.raises(SchemaError, match="outbox_id_seq is behind"):
        await write(session, slot())


# Strict order


async def test_strict_writers_of_a_key_commit_in_the_order_of_their_ids(
    engine: AsyncEngine, observer: asyncpg.Connection
) -> None:
    async with AsyncSession(engine) as first, AsyncSession(engine) as second:
        await write(first, slot(1), slot(1, key="b"), strict_order=True)
        pid = await sql.pid_of(second)
        waiting = asyncio.create_task(write(second, slot(2, key="b"), slot(2), strict_order=True))
        await sql.blocked(observer, pid)
        assert await observer.fetchval("SELECT last_value FROM outbox_id_seq") == 2
        await write(first, slot(1, key="c"), strict_order=True)
        await first.commit()
        await waiting
        await second.commit()
    rows = await observer.fetch("SELECT payload FROM outbox ORDER BY id")
    assert [row["payload"][-2:-1] for row in rows] == [b"1", b"1", b"1", b"2", b"2"]


async def test_strict_writers_of_the_same_keys_do_not_deadlock(
    engine: AsyncEngine, session: AsyncSession, observer: asyncpg.Connection
) -> None:
    x, y = slot(key="x"), slot(key="y")
    await write(session, x, strict_order=True)
    async with AsyncSession(engine) as second, AsyncSession(engine) as third:
        waiting = []
        for late, keys in ((second, (x, y)), (third, (y, x))):
            pid = await sql.pid_of(late)
            waiting.append(asyncio.create_task(write(late, *keys, strict_order=True)))
            await sql.blocked(observer, pid)
        await session.commit()
        await waiting[0]
        await second.commit()
        await waiting[1]


@pytest.mark.parametrize(
    "other", [{"key": "b"}, {"destination": "else"}, {"sink": "redis"}, {"key": None}], ids=str
)
async def test_strict_writers_of_other_keys_do_not_wait(
    engine: AsyncEngine, session: AsyncSession, other: dict[str, Any]
) -> None:
    await write(session, slot(), strict_order=True)
    async with AsyncSession(engine) as second, asyncio.timeout(BOUNDED):
        await write(second, slot(**other), strict_order=True)


async def test_rows_without_a_key_have_nothing_to_wait_for(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    await write(session, slot(key=None), strict_order=True)
    async with AsyncSession(engine) as second, asyncio.timeout(BOUNDED):
        await write(second, slot(key=None), strict_order=True)


async def test_a_driver_that_commits_by_itself_is_refused(database: str) -> None:
    engine = create_engine(
        make_url(database).set(drivername="postgresql+psycopg"),
        connect_args={"autocommit": True},
        poolclass=NullPool,
    )

    def attempt() -> None:
        with engine.connect() as connection, pytest.raises(OutboxError, match="autocommit"):
            write_sync(connection, slot())

    await asyncio.to_thread(attempt)


# Traces


@pytest.fixture
def tracer() -> trace.Tracer:
    return TracerProvider().get_tracer("tests")


async def headers_of(session: AsyncSession, message: Message) -> dict[str, str]:
    await write(session, message)
    found: dict[str, str] = (await session.execute(text("SELECT headers FROM outbox"))).scalar_one()
    return found


async def test_the_current_span_goes_along(session: AsyncSession, tracer: trace.Tracer) -> None:
    expected: dict[str, str] = {}
    with tracer.start_as_current_span("upload"):
        TraceContextTextMapPropagator().inject(expected)
        headers = await headers_of(session, slot())
    assert headers == expected | {"content_type": "application/json"}
    assert set(expected) == {"traceparent"}


async def test_the_trace_state_goes_along(session: AsyncSession) -> None:
    state = trace.TraceState([("vendor", "x"), ("other", "y")])
    context = trace.SpanContext(trace_id=0xA, span_id=0xB, is_remote=True, trace_state=state)
    expected: dict[str, str] = {}
    with trace.use_span(trace.NonRecordingSpan(context)):
        TraceContextTextMapPropagator().inject(expected)
        headers = await headers_of(session, slot(payload=None))
    assert headers == expected
    assert set(expected) == {"traceparent", "tracestate"}


async def test_a_trace_that_is_given_wins(session: AsyncSession, tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("upload"):
        headers = await headers_of(session, slot(headers={"traceparent": "00-given"}))
    assert headers == {"traceparent": "00-given", "content_type": "application/json"}


async def test_without_a_span_there_is_no_trace(session: AsyncSession) -> None:
    assert await headers_of(session, slot()) == {"content_type": "application/json"}


# Settings


async def test_settings_are_read_once(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    forget = _process_encoder.cache_clear, loaded.cache_clear
    for clear in forget:
        clear()
    monkeypatch.setenv("OUTBOX_KAFKA_MAX_BYTES", "50")
    try:
        for _ in range(2):
            with pytest.raises(MessageError, match=r"kafka takes 50; .* OUTBOX_KAFKA_MAX_BYTES"):
                await write(session, slot(payload=b"x" * 100))
            monkeypatch.setenv("OUTBOX_KAFKA_MAX_BYTES", "5000")
        assert await write(session, slot(payload=b"x" * 100), settings=Settings()) == 1
    finally:
        for clear in forget:
            clear()


# Other languages


async def test_the_recipe_in_the_documentation_works(observer: asyncpg.Connection) -> None:
    recipe = re.search(r"INSERT INTO outbox.*?\n\n", sys.modules[write.__module__].__doc__ or "", re.DOTALL)
    assert recipe is not None
    await observer.execute(recipe[0])
    row = await observer.fetchrow("SELECT * FROM outbox_state")
    assert (row["state"], row["key"]) == ("ready", "batch-1")
    assert await observer.fetchval("SELECT payload FROM outbox") == b'{"n": 1}'


async def test_copy_fires_both_triggers(observer: asyncpg.Connection) -> None:
    await observer.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE 'an id was drawn before its transaction had an xid'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON outbox FOR EACH ROW
        WHEN (pg_current_xact_id_if_assigned() IS NULL) EXECUTE FUNCTION refuse();
    """)
    lines = b"".join(b"%s,t,kafka,slots,\\x00\n" % str(new_id()).encode() for _ in range(1_000))
    await observer.copy_to_table(
        "outbox",
        source=io.BytesIO(lines),
        columns=("message_id", "type", "sink", "destination", "payload"),
        format="csv",
    )
    assert await observer.fetchval("SELECT count(*) FROM outbox_queue") == 1_000
    await observer.execute("DROP TRIGGER outbox_begin_writing ON outbox")
    with pytest.raises(asyncpg.RaiseError, match="before its transaction"):
        await observer.copy_to_table(
            "outbox",
            source=io.BytesIO(lines),
            columns=("message_id", "type", "sink", "destination", "payload"),
            format="csv",
        )


def test_a_service_that_only_writes_stays_light() -> None:
    heavy = {"aiokafka", "alembic", "asyncpg", "opentelemetry", "prometheus_client", "redis", "starlette"}
    program = f"import sys, outbox; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "[]\n"
