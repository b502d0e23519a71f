"""Acts as operations: what they leave out, who may ask, what is kept of them, and how they go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.errors import OperatorError
from outbox.operate import Done, Selection, Who, Wish, Work, connect
from outbox.schema.grants import RIGHTS, Part, grants
from outbox.settings import Settings
from tests.support import sql

PARKED = "parked_at = clock_timestamp(), due_at = NULL, attempts = 10, last_error = 'too large'"


@pytest.fixture
async def observer(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as connection:
        yield connection


async def write(observer: asyncpg.Connection, *keys: str | None, parked: bool = True) -> list[int]:
    """One delivery for each key; parked, unless told otherwise."""
    rows = await observer.fetch(
        "INSERT INTO outbox (message_id, type, sink, destination, key, payload, available_at, expires_at)"
        " SELECT gen_random_uuid(), 't.happened', 'kafka', 'orders', key, '{}', now(), now() + interval '1 h'"
        " FROM unnest($1::text[]) WITH ORDINALITY AS given (key, place) ORDER BY place RETURNING id",
        keys,
    )
    ids = [row["id"] for row in rows]
    if parked:
        await observer.execute(f"UPDATE outbox_queue SET {PARKED} WHERE id = ANY ($1)", ids)
    return ids


async def deliver(observer: asyncpg.Connection, *ids: int) -> None:
    await observer.execute(
        "WITH done AS (DELETE FROM outbox_queue WHERE id = ANY ($1) RETURNING id)"
        " INSERT INTO outbox_receipts (id, outcome, attempts) SELECT id, 'delivered', 0 FROM done",
        ids,
    )


async def ask(operator: AsyncConnection, act: operate.Act, selection: Selection, **how: Any) -> int:
    wish = Wish(act=act, selection=selection, **how)
    return await operate.ask(operator, await operate.preview(operator, wish), Who())


async def parked(observer: asyncpg.Connection) -> list[int]:
    rows = await observer.fetch("SELECT id FROM outbox_queue WHERE parked_at IS NOT NULL ORDER BY id")
    return [row["id"] for row in rows]


# The order of keys


async def test_a_key_with_an_earlier_parked_row_outside_the_selection_is_left_out_or_taken_along(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    earlier, *later = await write(observer, "a", "a", "b", "a", None)
    await observer.execute("UPDATE outbox_queue SET last_error = 'else' WHERE id = $1", earlier)
    chosen = Selection(error="too large")
    seen = await operate.preview(operator, Wish(act="retry", selection=chosen))
    assert (seen.rows.rows, seen.left_out) == (4, 2)
    assert await operate.retry(operator, chosen) == Done(rows=2, left_out=2)
    assert await parked(observer) == [earlier, later[0], later[2]]
    assert await operate.retry(operator, chosen, with_earlier=True) == Done(rows=3)
    assert await parked(observer) == []


async def test_a_busy_row_ends_the_turn_of_its_key(
    database: str, observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    _, second, third, _ = await write(observer, "a", "a", "a", "b")
    async with sql.connection(database) as somebody, somebody.transaction():
        await somebody.execute("SELECT FROM outbox_queue WHERE id = $1 FOR UPDATE", second)
        assert await operate.retry(operator, Selection()) == Done(rows=2, left_out=1, busy=1)
    assert await parked(observer) == [second, third]
    assert await operate.retry(operator, Selection()) == Done(rows=2)


async def test_park_goes_down_so_that_nothing_later_of_a_key_overtakes(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    ids = await write(observer, *["a"] * 6_000, parked=False)
    asked = await ask(operator, "park", Selection(key="a"), error="by hand")
    await Work(operator).step()
    assert await parked(observer) == ids[-5_000:]
    assert (await Work(operator).finish(asked)).rows == 6_000


async def test_many_are_walked_in_their_order_up_to_what_was_there_when_it_was_asked(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    ids = await write(observer, *(f"key-{number % 300}" for number in range(11_000)))
    acts: list[tuple[operate.Act, list[int]]] = [("retry", []), ("park", ids), ("skip", [])]
    for act, left in acts:
        asked = await ask(operator, act, Selection(type="t.happened"))
        await observer.execute("UPDATE outbox SET type = 'later' WHERE id > $1", ids[-1])
        late = await write(observer, "late", parked=act != "park")
        found = await Work(operator).finish(asked)
        assert (found.rows, found.left_out, found.expected) == (len(ids), 0, None)
        assert [id_ for id_ in await parked(observer) if id_ <= ids[-1]] == left
        assert (late[0] in await parked(observer)) is (act != "park")


# Who may ask, and what is kept


@pytest.mark.parametrize("part", ["operator", "relay"])
async def test_the_record_of_acts_cannot_be_changed_by_the_role_that_writes_it(
    database: str, observer: asyncpg.Connection, part: Part
) -> None:
    async with sql.role(database) as (role, url):
        for statement in grants(part, role):
            await observer.execute(statement)
        if part == "operator":
            async with connect(Settings(database_url=url)) as connection:
                await write(observer, "k")
                await operate.skip(connection, Selection(), who=Who(os_user="eve", reason="nobody needs it"))
        async with sql.connection(url) as connection:
            for statement in (
                "UPDATE outbox_acts SET role = 'mallory'",
                "DELETE FROM outbox_acts",
                "TRUNCATE outbox_acts",
                "INSERT INTO outbox_acts (act, phase, role) VALUES ('skip', 'done', 'mallory')",
                "INSERT INTO outbox_operations (act, selection, options, up_to, reached, asked_by)"
                " VALUES ('skip', '{}', '{}', 9, 0, 'mallory')",
                "UPDATE outbox_operations SET act = 'skip'",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
    # Nor by the owner of the tables.
    for statement in ("UPDATE outbox_acts SET role = ''", "DELETE FROM outbox_acts", "TRUNCATE outbox_acts"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="tells what was done"):
            await observer.execute(statement)


async def test_a_role_from_before_without_the_right_cannot_act(
    database: str, observer: asyncpg.Connection
) -> None:
    await write(observer, "k")
    async with sql.role(database) as (role, url):
        for table, rights in RIGHTS["operator"].items():
            await observer.execute(f"GRANT {rights} ON {table} TO {role}")
        with pytest.raises(OperatorError, match="permission denied for function outbox_ask; grant it"):
            async with connect(Settings(database_url=url)) as connection:
                await operate.skip(connection, Selection())
    assert len(await parked(observer)) == 1


async def test_it_is_kept_who_did_what_when_and_why_and_what_came_of_it(
    database: str, observer: asyncpg.Connection
) -> None:
    (id_,) = await write(observer, "k")
    async with sql.role(database) as (role, url):
        for statement in grants("operator", role):
            await observer.execute(statement)
        async with connect(Settings(database_url=url)) as connection:
            who = Who(os_user="eve", login="eve@page", reason="nobody needs it")
            await operate.skip(connection, Selection(ids=[id_], error="large"), who=who)
            ended, asked = await operate.acts(connection, 9)
    assert (asked.act, asked.phase, asked.role, asked.os_user) == ("skip", "asked", role, "eve")
    assert (asked.login, asked.reason) == ("eve@page", "nobody needs it")
    assert asked.selection == {"ids": [id_], "error": "large"}
    assert asked.before is not None
    assert (asked.before["rows"], asked.before["parked"]) == ("1", 1)
    assert asked.before["sample"][0]["last_error"] == "too large"
    assert (ended.phase, ended.operation, ended.after) == (
        "done",
        asked.operation,
        {"rows": 1, "left_out": 0, "busy": 0, "uncertain": 0},
    )


async def test_an_operation_that_is_cancelled_ends_where_it_is(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    ids = await write(observer, *map(str, range(6_000)))
    asked = await ask(operator, "skip", Selection())
    await Work(operator).step()
    assert await operate.cancel(operator, asked, Who(reason="enough"))
    assert await Work(operator).step() is None
    assert await parked(observer) == ids[5_000:]
    found = await operate.operation(operator, asked)
    assert (found.cancelled, found.rows) == (True, 5_000)
    assert not await operate.cancel(operator, asked, Who())
    phases = [(each.act, each.phase) for each in await operate.acts(operator, 9)]
    assert sorted(phases) == [("cancel", "done"), ("skip", "asked"), ("skip", "cancelled")]


async def test_one_that_fails_says_so_and_holds_up_no_other(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    broken = await ask(operator, "retry", Selection())
    await observer.execute(
        """UPDATE outbox_operations SET selection = '{"key": 7}', ids = NULL, up_to = 99"""
    )
    await write(observer, "k")
    await write(observer, "j", parked=False)
    other = await ask(operator, "skip", Selection(states=["parked"]))
    work = Work(operator)
    with pytest.raises(Exception, match="operator does not exist"):
        await work.step()
    assert (await work.finish(other)).rows == 1
    assert "operator does not exist" in ((await operate.operation(operator, broken)).trouble or "")


# Replay


async def test_replay_sends_each_message_once_more_in_order_and_says_so(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    ids = await write(observer, *["a", "b", None] * 400, parked=False)
    await deliver(observer, *ids[:-1])
    first = await operate.replay(operator, Selection(sink="kafka"))
    assert first.rows == len(ids) - 1
    again = "SELECT * FROM outbox WHERE replay_id IS NOT NULL AND destination = 'orders' ORDER BY id"
    rows = await observer.fetch(again)
    written = await observer.fetch("SELECT * FROM outbox WHERE id = ANY ($1) ORDER BY id", ids[:-1])
    for name in ("message_id", "type", "key", "payload", "headers", "key_hash"):
        assert [row[name] for row in rows if row["key"]] == [row[name] for row in written if row["key"]]
    assert {(row["available_at"], row["expires_at"]) for row in rows} == {(None, None)}
    assert len({row["replay_id"] for row in rows}) == 1
    # What was sent twice goes out once, elsewhere.
    await deliver(observer, *(row["id"] for row in rows))
    assert (await operate.replay(operator, Selection(sink="kafka", key="a"), to="other")).rows == 400
    rows = await observer.fetch("SELECT * FROM outbox WHERE destination = 'other' ORDER BY id")
    expected = [row["message_id"] for row in written if row["key"] == "a"]
    assert [row["message_id"] for row in rows] == expected


async def test_replay_of_a_time_and_no_faster_than_it_may(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    ids = await write(observer, *"abcdef", parked=False)
    await deliver(observer, *ids)
    await observer.execute(
        "UPDATE outbox_receipts SET settled_at = '2026-01-01Z'::timestamptz + id * interval '1 h'"
    )
    since, until = (f"2026-01-01T{ids[0] + hours:02}:00:00Z" for hours in (1, 4))
    how = {"since": since, "until": until, "rate": 4.0}
    asked = await ask(operator, "replay", Selection(sink="kafka"), **how)
    step = await Work(operator).step()
    assert step is not None
    assert step.done.rows == 1
    waits = await Work(operator).step()
    assert waits is not None
    assert 0 < waits.wait <= 0.25
    assert (await Work(operator).finish(asked)).rows == 3
    again = await observer.fetch("SELECT key FROM outbox WHERE replay_id IS NOT NULL ORDER BY id")
    assert [row["key"] for row in again] == ["b", "c", "d"]


async def test_what_the_table_does_not_take_any_more_stops_no_replay(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    ids = await write(observer, *"abcde", parked=False)
    await deliver(observer, *ids)
    await observer.execute("ALTER TABLE outbox ADD CONSTRAINT newer CHECK (key <> 'c') NOT VALID")
    assert await operate.replay(operator, Selection(sink="kafka")) == Done(rows=4, left_out=1)
