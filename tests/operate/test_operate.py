from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.errors import OperatorError, SchemaError
from outbox.migrate import upgrade
from outbox.operate import PENDING, Done, Selection, connect
from outbox.settings import Settings
from tests.support import sql
from tests.support.waiting import BOUNDED, until

RELAY = UUID(int=1)


@pytest.fixture
async def observer(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as connection:
        yield connection


async def write(
    observer: asyncpg.Connection,
    *keys: str | None,
    sink: str = "kafka",
    destination: str = "topic",
    **more: Any,
) -> list[int]:
    """One delivery for each key; returns their ids."""
    more = {"message_id": uuid4(), "type": "t.happened", "payload": b"{}", **more}
    names = ", ".join(more)
    values = ", ".join(f"${place}" for place in range(4, 4 + len(more)))
    statement = (
        f"INSERT INTO outbox (sink, destination, key, {names}) VALUES ($1, $2, $3, {values}) RETURNING id"
    )
    ids = []
    for key in keys:
        ids.append(await observer.fetchval(statement, sink, destination, key, *more.values()))
        more["message_id"] = uuid4()
    return ids


async def park(observer: asyncpg.Connection, *ids: int, blocks: bool = False, **more: Any) -> None:
    await change(
        observer,
        *ids,
        parked_at="clock_timestamp()",
        attempts="10",
        last_error="'Too Large'",
        blocks=str(blocks),
        due_at="NULL",
        **more,
    )


async def fail(observer: asyncpg.Connection, *ids: int, due_in: str = "1 hour") -> None:
    await change(
        observer,
        *ids,
        due_at=f"clock_timestamp() + interval '{due_in}'",
        attempts="3",
        last_error="'timed out'",
        blocks="true",
    )


async def change(observer: asyncpg.Connection, *ids: int, **values: str) -> None:
    what = ", ".join(f"{name} = {value}" for name, value in values.items())
    await observer.execute(f"UPDATE outbox_queue SET {what} WHERE id = ANY ($1)", ids)


async def own_all_lanes(observer: asyncpg.Connection, *sinks: str) -> None:
    await observer.execute(
        "INSERT INTO outbox_relays (relay_id, name, version, sinks, expires_at)"
        " VALUES ($1, 'host:1', '1.0', $2, clock_timestamp() + interval '1 minute')",
        RELAY,
        sinks,
    )
    await observer.execute(
        "INSERT INTO outbox_lanes (sink, lane, owner, epoch, expires_at)"
        " SELECT sink, lane, $1, 1, clock_timestamp() + interval '1 minute'"
        " FROM unnest($2::text[]) AS sink, generate_series(0, 63) AS lane",
        RELAY,
        sinks,
    )


async def states(operator: AsyncConnection) -> dict[int, str]:
    rows = await operator.execute(text("SELECT id, state FROM outbox_state ORDER BY id"))
    found = {row.id: row.state for row in rows}
    await operator.rollback()
    return found


async def serve(observer: asyncpg.Connection, *sinks: str) -> None:
    statement = "INSERT INTO outbox_sinks (sink, stuck_after, on_park) VALUES ($1, '5 minutes', 'hold')"
    await observer.executemany(statement, [(sink,) for sink in sinks])


async def holds_ended(observer: asyncpg.Connection) -> dict[str, int]:
    rows = await observer.fetch("SELECT sink, holds_ended FROM outbox_sinks WHERE holds_ended > 0")
    return {row["sink"]: row["holds_ended"] for row in rows}


async def one_of_each(observer: asyncpg.Connection) -> dict[str, int]:
    """A delivery in each pending state."""
    (scheduled,) = await write(observer, "s")
    await change(observer, scheduled, due_at="clock_timestamp() + interval '1 hour'")
    head, held = await write(observer, "a", "a")
    await fail(observer, head)
    (ready,) = await write(observer, None)
    (parked,) = await write(observer, "p")
    await park(observer, parked)
    return {"scheduled": scheduled, "retrying": head, "held": held, "ready": ready, "parked": parked}


# Reading


async def test_find_by_each_condition(observer: asyncpg.Connection, operator: AsyncConnection) -> None:
    of = await one_of_each(observer)
    (elsewhere,) = await write(observer, "x%y", sink="redis", destination="ws:1", type="other")
    for state, id_ in of.items():
        expected = [id_, elsewhere] if state == "ready" else [id_]
        assert [
            each.id for each in (await operate.page(operator, Selection(states=[state]), 9)).deliveries
        ] == expected

    async def ids(**conditions: Any) -> list[int]:
        selection = Selection(**conditions)
        found = [each.id for each in (await operate.page(operator, selection, 9)).deliveries]
        assert await operate.count(operator, selection) == len(found)
        return found

    assert await ids(sink="redis") == [elsewhere]
    assert await ids(destination="ws:1") == [elsewhere]
    assert await ids(key="a") == [of["retrying"], of["held"]]
    assert await ids(type="other") == [elsewhere]
    assert await ids(error="too large") == [of["parked"]]
    assert await ids(error="%") == []
    assert await ids(ids=[of["held"], 10**6]) == [of["held"]]
    assert await ids(states=("parked", "held")) == [of["held"], of["parked"]]
    assert await ids(key="a", states=["ready"]) == []
    assert await ids(stuck=True) == []


async def test_what_is_overdue_is_stuck_whatever_the_backoff(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    of = await one_of_each(observer)
    await change(observer, *of.values(), first_due_at="clock_timestamp() - interval '10 minutes'")
    stuck = {each.id for each in (await operate.page(operator, Selection(stuck=True), 9)).deliveries}
    assert stuck == set(of.values()) - {of["parked"]}
    await observer.execute("INSERT INTO outbox_sinks VALUES ('kafka', interval '1 hour', 'continue')")
    await operator.rollback()
    assert await operate.count(operator, Selection(stuck=True)) == 0


async def test_show_tells_everything_and_the_payload_only_if_asked(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    message = uuid4()
    (to_kafka,) = await write(observer, "k", message_id=message, headers='{"correlation_id": "c"}')
    (to_redis,) = await write(observer, "k", sink="redis", message_id=message, payload=b"\xff")
    await own_all_lanes(observer, "kafka")
    await observer.execute("DELETE FROM outbox_queue WHERE id = $1", to_redis)
    await observer.execute(
        "INSERT INTO outbox_receipts (id, outcome, attempts, receivers) VALUES ($1, 'delivered', 2, 3)",
        to_redis,
    )
    kafka, redis = await operate.show(operator, Selection(message_ids=[message]), payload=True)
    assert (kafka.delivery.id, kafka.delivery.state, kafka.owner) == (to_kafka, "ready", "host:1")
    assert (kafka.headers, kafka.payload) == ({"correlation_id": "c"}, b"{}")
    assert kafka.delivery.correlation_id == "c"
    assert (redis.delivery.state, redis.delivery.receivers, redis.delivery.attempts) == ("delivered", 3, 2)
    assert (redis.owner, redis.payload) == (None, b"\xff")
    assert (await operate.show(operator, Selection(ids=[to_kafka])))[0].payload is None


async def test_show_names_what_a_key_waits_for(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    first, second, third = await write(observer, "k", "k", "k")
    await park(observer, first, blocks=True)
    await fail(observer, second)
    (details,) = await operate.show(operator, Selection(ids=[third]))
    assert details.held_by == first


async def test_depths_agree_with_the_view(observer: asyncpg.Connection, operator: AsyncConnection) -> None:
    for key in "abcdefgh":
        ids = await write(observer, *key * 4)
        await write(observer, *key * 2, sink="redis")
        await fail(observer, ids[1])
    await one_of_each(observer)
    (overdue,) = await write(observer, "late")
    await change(observer, overdue, first_due_at="clock_timestamp() - interval '10 minutes'")
    found: dict[tuple[str, str], int] = {}
    stuck = 0
    for depth in await operate.depths(operator):
        stuck += depth.stuck
        assert not depth.more
        for state in PENDING:
            found[depth.sink, state] = getattr(depth, "due" if state == "ready" else state)
    view = await observer.fetch(
        "SELECT sink, state, count(*) AS rows FROM outbox_state WHERE pending GROUP BY 1, 2"
    )
    assert {place: rows for place, rows in found.items() if rows} == {
        (row["sink"], row["state"]): row["rows"] for row in view
    }
    assert stuck == 1


async def test_status_sums_up(observer: asyncpg.Connection, operator: AsyncConnection) -> None:
    await observer.execute("INSERT INTO outbox_sinks VALUES ('redis', interval '1 minute', 'continue')")
    await own_all_lanes(observer, "kafka")
    healthy = await operate.status(operator)
    assert not healthy.needs_attention
    assert [sink.sink for sink in healthy.sinks] == ["redis"]
    await operator.rollback()

    of = await one_of_each(observer)
    await change(observer, of["ready"], first_due_at="clock_timestamp() - interval '1 minute'")
    found = await operate.status(operator)
    kafka, redis = found.sinks
    assert (kafka.pending, kafka.due, kafka.held, kafka.retrying, kafka.scheduled) == (4, 1, 1, 1, 1)
    assert (kafka.parked, kafka.stuck) == (1, 0)
    assert 60 <= (kafka.oldest_seconds or 0) < 120
    assert (redis.pending, redis.oldest_seconds) == (0, None)
    assert found.needs_attention
    assert [(relay.name, relay.lanes) for relay in found.relays] == [("host:1", {"kafka": 64})]


# Acting


async def test_retry_makes_parked_and_waiting_ones_due_now(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    of = await one_of_each(observer)
    assert await operate.retry(operator, Selection()) == Done(rows=2)
    rows = await observer.fetch(
        "SELECT id, attempts, blocks FROM outbox_queue"
        " WHERE parked_at IS NULL AND last_error IS NOT NULL AND due_at IS NULL ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [(of["retrying"], 0, False), (of["parked"], 0, False)]


async def test_retry_leaves_other_states_alone(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    of = await one_of_each(observer)
    before = await states(operator)
    assert await operate.retry(operator, Selection(states=["ready", "held", "scheduled"])) == Done()
    assert await operate.retry(operator, Selection(ids=[of["ready"], of["held"]])) == Done()
    assert await states(operator) == before


async def test_a_retried_delivery_goes_before_its_followers(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await serve(observer, "kafka")
    first, second = await write(observer, "k", "k")
    await park(observer, first)
    assert await states(operator) == {first: "parked", second: "ready"}
    await operate.retry(operator, Selection(ids=[first]))
    # In line, where the ids say so.
    assert await states(operator) == {first: "ready", second: "ready"}
    assert await holds_ended(observer) == {"kafka": 1}


async def test_retry_by_key_leaves_other_keys_alone(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    mine, other = await write(observer, "a", "b")
    await park(observer, mine, other)
    assert (await operate.retry(operator, Selection(sink="kafka", destination="topic", key="a"))).rows == 1
    assert await states(operator) == {mine: "ready", other: "parked"}


async def test_skip_leaves_a_receipt_and_releases_the_key(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await serve(observer, "kafka", "redis")
    first, second = await write(observer, "k", "k")
    (unrelated,) = await write(observer, "k", sink="redis")
    await park(observer, first, blocks=True, uncertain="true")
    assert await states(operator) == {first: "parked", second: "held", unrelated: "ready"}
    assert await operate.skip(operator, Selection(ids=[first])) == Done(rows=1, uncertain=1)
    assert await states(operator) == {first: "skipped", second: "ready", unrelated: "ready"}
    assert await holds_ended(observer) == {"kafka": 1}
    assert await observer.fetchval("SELECT attempts FROM outbox_receipts WHERE id = $1", first) == 10


async def test_each_skip_tells_that_holds_ended(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await serve(observer, "kafka", "redis")
    first, second = await write(observer, "k", "k")
    await park(observer, first, second, blocks=True)
    await operate.skip(operator, Selection(ids=[second]))
    await operate.skip(operator, Selection(ids=[first]))
    assert await holds_ended(observer) == {"kafka": 2}


async def test_skipping_what_holds_nothing_moves_no_floor(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await serve(observer, "kafka")
    (only,) = await write(observer, "k")
    await park(observer, only)
    await operate.skip(operator, Selection(ids=[only]))
    assert await holds_ended(observer) == {}


async def test_all_deliveries_of_a_message(observer: asyncpg.Connection, operator: AsyncConnection) -> None:
    message = uuid4()
    (kafka,) = await write(observer, "k", message_id=message)
    (redis,) = await write(observer, "k", sink="redis", message_id=message)
    (other,) = await write(observer, "k")
    assert (await operate.skip(operator, Selection(message_ids=[message]))).rows == 2
    assert await states(operator) == {kafka: "skipped", redis: "skipped", other: "ready"}


async def test_what_is_done_cannot_be_retried_or_skipped(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    (done,) = await write(observer, "k")
    await operate.skip(operator, Selection(ids=[done]))
    assert await operate.skip(operator, Selection(ids=[done])) == Done()
    assert await operate.retry(operator, Selection(ids=[done])) == Done()


async def test_more_than_one_batch(observer: asyncpg.Connection, operator: AsyncConnection) -> None:
    await observer.execute(
        "INSERT INTO outbox (message_id, type, sink, destination, key)"
        " SELECT gen_random_uuid(), 't', 'kafka', 'topic', g::text FROM generate_series(1, 2500) AS g"
    )
    await observer.execute("UPDATE outbox_queue SET parked_at = now(), last_error = 'x'")
    assert await operate.retry(operator, Selection(states=["parked", "retrying"])) == Done(rows=2_500)
    assert await operate.skip(operator, Selection(error="x")) == Done(rows=2_500)
    assert set((await states(operator)).values()) == {"skipped"}


async def test_a_row_being_settled_is_left_to_its_relay(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    settling, waiting = await write(observer, "a", "b")
    await park(observer, settling, waiting)
    async with observer.transaction():
        await observer.execute("DELETE FROM outbox_queue WHERE id = $1", settling)
        async with asyncio.timeout(BOUNDED):
            assert await operate.skip(operator, Selection(states=["parked"])) == Done(rows=1, busy=1)


async def test_a_row_whose_failure_is_being_recorded_is_left_to_its_relay(
    database: str, observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    (only,) = await write(observer, "k")
    for act in (operate.retry, operate.skip):
        await change(observer, only, parked_at="NULL")
        await fail(observer, only)
        async with sql.connection(database) as relay, relay.transaction():
            await park(relay, only)
            assert await act(operator, Selection(states=["retrying"])) == Done(busy=1)
    assert await states(operator) == {only: "parked"}


async def test_an_action_and_the_renewal_of_a_lease_do_not_wait_for_each_other(
    database: str, observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await own_all_lanes(observer, "kafka")
    await serve(observer, "kafka")
    ids = await write(observer, "a", "b")
    await park(observer, *ids, blocks=True)
    async with sql.connection(database) as relay, relay.transaction(), asyncio.timeout(BOUNDED):
        await relay.execute("UPDATE outbox_lanes SET expires_at = expires_at + interval '1 second'")
        assert await operate.retry(operator, Selection()) == Done(rows=2)
        assert await operate.skip(operator, Selection(states=["ready"])) == Done(rows=2)


@pytest.mark.parametrize("act", [operate.retry, operate.skip])
async def test_an_action_on_many_rows_reads_each_a_few_times(
    database: str, observer: asyncpg.Connection, act: Any
) -> None:
    rows = 20_000
    await observer.execute(
        "INSERT INTO outbox (message_id, type, sink, destination, key)"
        f" SELECT gen_random_uuid(), 't', 'kafka', 'topic', g::text FROM generate_series(1, {rows}) AS g"
    )
    # What was parked just now is in no statistics yet.
    await observer.execute("ANALYZE; UPDATE outbox_queue SET parked_at = now(), last_error = 'x'")
    await observer.fetchval("SELECT pg_stat_reset()")
    async with connect(Settings.model_validate({"database_url": database})) as operator:
        assert await act(operator, Selection(states=["parked"])) == Done(rows=rows)
        pid = await sql.pid_of(operator)

    async def is_told() -> bool:
        # A session tells the statistics what it read when it ends, if not before.
        gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"
        return bool(await observer.fetchval(gone, pid))

    await until(is_told)
    read = await observer.fetchval(
        "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_user_tables"
        " WHERE relname IN ('outbox', 'outbox_queue')"
    )
    assert rows <= read < 12 * rows


# Which rows a question reads


@pytest.mark.parametrize("selection", [Selection(stuck=True), Selection(states=["parked"])])
async def test_asking_for_what_is_pending_reads_no_receipts(
    selection: Selection, observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await write(observer, "k")
    statement = operate.state.pending(selection, operate.state.STATE.c.id)
    compiled = statement.compile(dialect=operator.dialect, compile_kwargs={"literal_binds": True})
    plan = "\n".join(row[0] for row in await observer.fetch(f"EXPLAIN {compiled}"))
    assert "outbox_queue" in plan
    assert "outbox_receipts" not in plan


# Reaching the database


async def test_in_a_schema_of_its_own(empty_database: str) -> None:
    settings = Settings.model_validate({"database_url": empty_database, "database_schema": "messages"})
    await asyncio.to_thread(upgrade, settings)
    async with sql.connection(empty_database, server_settings={"search_path": "messages"}) as observer:
        (only,) = await write(observer, "k")
    async with connect(settings) as operator:
        assert len((await operate.status(operator)).sinks) == 1
        await operator.rollback()
        assert (await operate.skip(operator, Selection(ids=[only]))).rows == 1
        assert [each.delivery.state for each in await operate.show(operator, Selection(ids=[only]))] == [
            "skipped"
        ]


async def test_behind_a_pooler(pgbouncer: Any, observer: asyncpg.Connection) -> None:
    ids = await write(observer, "a", "b")
    settings = Settings.model_validate({"database_url": pgbouncer.url, "database_pooler": "transaction"})
    for id_ in ids:
        async with connect(settings) as operator:
            await operate.status(operator)
            await operator.rollback()
            assert (await operate.skip(operator, Selection(ids=[id_]))).rows == 1


async def test_a_database_without_tables_says_what_to_do(empty_database: str) -> None:
    with pytest.raises(SchemaError, match=r"not migrated.*outbox migrate"):
        async with connect(Settings.model_validate({"database_url": empty_database})) as operator:
            await operate.status(operator)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"port": 1}, "Cannot reach the database at .*:1/.*OUTBOX_DATABASE_URL"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist; create it'),
        ({"username": "nobody", "password": "geheim"}, "nobody:.*check the user and password"),
    ],
)
async def test_a_database_out_of_reach_says_what_to_do(
    database: str, change: dict[str, Any], says: str
) -> None:
    url = make_url(database).set(**change).render_as_string(hide_password=False)
    with pytest.raises(OperatorError, match=says) as error:
        async with connect(Settings.model_validate({"database_url": url})):
            pass
    assert "geheim" not in str(error.value)
