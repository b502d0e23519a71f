"""What a role or a database has set for others does no harm to a relay, an operator or a migration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from random import Random
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url, text

from outbox import Message, create_engine, new_id, once, operate
from outbox import write as say
from outbox.errors import ConflictError
from outbox.migrate import upgrade
from outbox.operate import Selection
from outbox.relay import Relay
from outbox.settings import Settings
from outbox.testing import Fault, Gate
from tests.relay.traffic import QUICK, SINK, emptied, inversions, settings_of, write
from tests.support import sql
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Cluster
from tests.support.waiting import until

HARMFUL = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "'1ms'",
    "lock_timeout": "'1ms'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "idle_session_timeout": "'1s'",
    "transaction_timeout": "'100ms'",
    "row_security": "off",
    "standard_conforming_strings": "off",
    "plan_cache_mode": "force_custom_plan",
    "enable_nestloop": "off",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_sort": "off",
    "join_collapse_limit": "1",
    "from_collapse_limit": "1",
    "work_mem": "'64kB'",
    "temp_file_limit": "0",
}
"""What would hurt a relay, an operator or a migration."""

ODD = {
    "TimeZone": "'Pacific/Kiritimati'",
    "DateStyle": "'German, DMY'",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "client_encoding": "LATIN1",
    "synchronous_commit": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "client_min_messages": "error",
    "search_path": "public, pg_catalog",
}
"""What a writer may have too."""


async def alter(owner: asyncpg.Connection, what: str, settings: Iterable[tuple[str, str]]) -> None:
    for name, value in settings:
        if await owner.fetchval(
            "SELECT EXISTS (SELECT FROM pg_settings WHERE lower(name) = lower($1))", name
        ):
            await owner.execute(f"ALTER {what} SET {name} = {value}")


@pytest.fixture
async def app(postgres: Cluster, empty_database: str) -> AsyncIterator[str]:
    """The URL of an empty database as a role that owns it."""
    async with sql.role(empty_database) as (name, url):
        await postgres.execute(f"ALTER DATABASE {make_url(url).database} OWNER TO {name}")
        async with sql.connection(empty_database) as owner:
            await owner.execute(f"GRANT ALL ON SCHEMA public TO {name}")
        yield url
        await postgres.execute(f"ALTER DATABASE {make_url(url).database} OWNER TO postgres")


async def parked(observer: asyncpg.Connection, count: int) -> None:
    """Return once so many deliveries are parked and nothing else is left."""

    async def are() -> bool:
        found = await observer.fetch("SELECT parked_at IS NOT NULL FROM outbox_queue")
        return [each for (each,) in found] == [True] * count

    await until(are)


async def everything(settings: Settings, gate: Gate, observer: asyncpg.Connection) -> None:
    """Does what a relay and an operator do from day to day; `observer` has ordinary settings."""
    gate.set(Fault(kind="permanent", key="bad"))
    async with Relay(settings):
        ids = await write(observer, [f"key-{number % 5}" for number in range(100)])
        bad = await write(observer, ["bad"] * 2)
        await parked(observer, 2)
        gate.set()
        async with operate.connect(settings) as operator:
            found = await operate.status(operator)
            assert [sink.parked for sink in found.sinks if sink.sink == SINK] == [2]
            assert len((await operate.page(operator, Selection(states=["parked"]), limit=5)).deliveries) == 2
            (shown,) = await operate.show(operator, Selection(ids=bad[:1]), payload=True)
            assert await operate.trace(operator, shown.delivery.message_id)
            await operator.rollback()
            assert (await operate.skip(operator, Selection(ids=bad[:1]))).rows == 1
            assert (await operate.retry(operator, Selection(ids=bad[1:]))).rows == 1
        await emptied(observer)
    assert inversions(gate.attempts) == []
    assert {*ids, bad[1]} <= set(gate.arrived)


def relay_settings(url: str, gate: Gate, **more: str) -> Settings:
    return settings_of({**QUICK, **gate.environment(SINK), "OUTBOX_DATABASE_URL": url, **more})


@pytest.mark.parametrize("whose", ["role", "database"])
async def test_what_is_set_for_a_role_or_a_database_does_no_harm(
    whose: str, app: str, postgres: Cluster, empty_database: str, gate: Gate
) -> None:
    url = make_url(app)
    async with sql.connection(empty_database) as observer, sql.connection(postgres.url) as owner:
        what = f"ROLE {url.username}" if whose == "role" else f"DATABASE {url.database}"
        await alter(owner, what, {**HARMFUL, **ODD}.items())
        settings = relay_settings(app, gate)
        await asyncio.to_thread(upgrade, settings)
        await everything(settings, gate, observer)


async def test_behind_a_pooler_it_does_no_harm_either(
    pgbouncer: PgBouncer, postgres: Cluster, database: str, gate: Gate
) -> None:
    async with sql.connection(database) as observer, sql.connection(postgres.url) as owner:
        # The BEGIN that puts them aside runs under them itself.
        bearable = {**HARMFUL, "statement_timeout": "'20ms'"}
        await alter(owner, f"DATABASE {make_url(database).database}", bearable.items())
        await everything(
            relay_settings(pgbouncer.url, gate, OUTBOX_DATABASE_POOLER="transaction"), gate, observer
        )


@pytest.mark.parametrize("schema", [None, "Own"])
async def test_a_writer_may_have_odd_settings(schema: str | None, app: str, postgres: Cluster) -> None:
    settings = Settings.model_validate({"database_url": app, "database_schema": schema})
    await asyncio.to_thread(upgrade, settings)
    odd = {**ODD, "search_path": "''"} if schema else ODD
    async with sql.connection(postgres.url) as owner:
        for level in ("serializable", "repeatable read"):
            level_too = {**odd, "default_transaction_isolation": f"'{level}'"}
            await alter(owner, f"ROLE {make_url(app).username}", level_too.items())
            await writes(settings)


async def writes(settings: Settings) -> None:
    engine = create_engine(settings)
    message = Message(
        type="t", sink="kafka", destination="d", key="ключ", payload={"é": 1}, message_id=new_id()
    )
    keyless = Message(type="t", sink="kafka", destination="d", payload=b"\xff\x00\\'")
    other = Message(type="t", sink="kafka", destination="d", payload=b"other", message_id=message.message_id)
    async with engine.begin() as connection:
        assert await say(connection, message, keyless, strict_order=True, settings=settings) == 2
        async with once(connection, "grades", new_id(), settings=settings) as first:
            assert first
    async with engine.begin() as connection:
        assert await say(connection, message, settings=settings) == 0
        with pytest.raises(ConflictError):
            await say(connection, other, settings=settings)
        prefix = f'"{settings.database_schema}".' if settings.database_schema else ""
        rows = await connection.execute(
            text(f"SELECT key, payload FROM {prefix}outbox ORDER BY id DESC LIMIT 2")
        )
        assert [tuple(row) for row in rows] == [(None, b"\xff\x00\\'"), ("ключ", '{"é":1}'.encode())]
    await engine.dispose()


_LEFT_OUT = (
    *("transaction_isolation", "transaction_read_only", "transaction_deferrable"),
    *("session_replication_role", "session_preload_libraries", "local_preload_libraries"),
    *("default_tablespace", "temp_tablespaces", "default_table_access_method"),
    *("lc_messages", "lc_monetary", "lc_numeric", "lc_time", "event_triggers"),
    *("post_auth_delay", "max_stack_depth", "ignore_system_indexes", "zero_damaged_pages"),
)
"""What is no mere setting: it names what must exist, is found by `status`, or is for a broken database."""
EVERY = """
    SELECT name, vartype, reset_val, min_val, max_val, enumvals, unit FROM pg_settings
    WHERE context IN ('user', 'superuser') AND vartype <> 'string'
      AND name <> ALL ($1) ORDER BY name
"""


def drawn(setting: Any, random: Random) -> str:
    """Returns a value that is not the usual one."""
    match setting["vartype"]:
        case "bool":
            return "off" if setting["reset_val"] == "on" else "on"
        case "enum":
            return f"'{random.choice(setting['enumvals'])}'"
    lowest = max(float(setting["min_val"]), 0.0)
    if setting["unit"] in ("ms", "s", "min"):
        # A millisecond would end a session before anybody could say anything in it.
        return "100" if setting["unit"] == "ms" else "1"
    return str(random.choice([f"{lowest:g}", setting["reset_val"]]))


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_can_be_set_for_a_role_does_no_harm(
    seed: int, app: str, postgres: Cluster, empty_database: str, gate: Gate
) -> None:
    random = Random(seed)  # noqa: S311
    async with sql.connection(empty_database) as observer, sql.connection(postgres.url) as owner:
        chosen = [(each["name"], drawn(each, random)) for each in await owner.fetch(EVERY, _LEFT_OUT)]
        role = make_url(app).username
        for name, value in random.sample(chosen, len(chosen) // 2):
            await owner.execute(f"ALTER ROLE {role} SET {name} = {value}")
        settings = relay_settings(app, gate)
        await asyncio.to_thread(upgrade, settings)
        await everything(settings, gate, observer)
