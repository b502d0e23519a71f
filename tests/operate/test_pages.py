"""Lists and groups: everything once, in order, and a bounded number of rows for each page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import operate
from outbox.errors import OperatorError
from outbox.operate import Count, Selection, connect
from outbox.operate.groups import fingerprint_of
from outbox.settings import Settings
from tests.support import sql

READ = """
    SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables
    WHERE relname IN ('outbox', 'outbox_queue', 'outbox_receipts')
"""
ROWS = 120_000


@pytest.fixture
async def observer(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as connection:
        yield connection


async def write(observer: asyncpg.Connection, rows: int, **more: str) -> None:
    """Rows of ten keys, three destinations and two types, by turns; `more` are expressions of `g`."""
    values = {
        "message_id": "gen_random_uuid()",
        "type": "'t' || g % 2",
        "sink": "'kafka'",
        "destination": "'d' || g % 3",
        "key": "'k' || g % 10",
        **more,
    }
    await observer.execute(
        f"INSERT INTO outbox ({', '.join(values)}) SELECT {', '.join(values.values())}"
        f" FROM generate_series(1, {rows}) AS g"
    )


async def park(observer: asyncpg.Connection, which: str, error: str = "'of ' || id || ' bytes'") -> None:
    await observer.execute(
        "UPDATE outbox_queue SET parked_at = clock_timestamp(), due_at = NULL, attempts = 3,"
        f" last_error = {error} WHERE {which}"
    )


async def all_pages(operator: AsyncConnection, selection: Selection, limit: int) -> list[int]:
    found: list[int] = []
    after = None
    while True:
        page = await operate.page(operator, selection, limit, after)
        assert len(page.deliveries) <= limit
        found += [each.id for each in page.deliveries]
        if page.after is None:
            return found
        assert page.after != after
        after = page.after


async def test_pages_bring_everything_once_in_order(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await write(observer, 300)
    await write(observer, 20, sink="'redis'")
    await park(observer, "id % 5 = 0")
    await observer.execute(
        "UPDATE outbox_queue SET due_at = now() + id % 7 * interval '1 minute', last_error = 'x',"
        " blocks = true"
        " WHERE id % 5 = 1"
    )
    await observer.execute(
        "WITH done AS (DELETE FROM outbox_queue WHERE id % 5 = 2 RETURNING id)"
        " INSERT INTO outbox_receipts (id, outcome, attempts) SELECT id, 'delivered', 0 FROM done"
    )
    ids = range(1, 321)
    assert await all_pages(operator, Selection(), 7) == [id_ for id_ in ids if id_ % 5 != 2]
    assert await all_pages(operator, Selection(sink="redis"), 3) == [
        id_ for id_ in ids if id_ > 300 and id_ % 5 != 2
    ]
    assert await all_pages(operator, Selection(states=["parked"]), 7) == list(range(5, 321, 5))
    by_time = await all_pages(operator, Selection(states=["retrying"]), 7)
    assert by_time == sorted(range(1, 321, 5), key=lambda id_: (id_ % 7, id_))
    assert await all_pages(operator, Selection(states=["delivered"]), 7) == list(range(317, 0, -5))
    of_key = Selection(sink="kafka", destination="d0", key="k3")
    assert await all_pages(operator, of_key, 2) == [3, 33, 63, 93, 123, 153, 183, 213, 243, 273]


async def test_a_place_that_is_none_is_said(observer: asyncpg.Connection, operator: AsyncConnection) -> None:
    await write(observer, 1)
    for after in ("x", "1,2", ""):
        with pytest.raises(OperatorError, match="is no place in this list"):
            await operate.page(operator, Selection(), 1, after)
    with pytest.raises(OperatorError, match="lists of their own"):
        await operate.page(operator, Selection(states=["parked", "delivered"]), 1)


async def test_age_is_since_it_was_written(observer: asyncpg.Connection, operator: AsyncConnection) -> None:
    await write(observer, 2, created_at="now() - g * interval '1 hour'")
    ninety = timedelta(minutes=90)
    assert await all_pages(operator, Selection(older_than=ninety), 5) == [2]
    assert await all_pages(operator, Selection(newer_than=ninety), 5) == [1]


# By cause


async def test_one_error_of_one_type_to_one_destination_is_a_group(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await write(observer, 60)
    await park(observer, "id <= 60")
    found = await operate.groups(operator, Selection())
    assert sorted((group.type, group.destination, group.rows.rows) for group in found) == [
        (f"t{type_}", f"d{destination}", 10) for type_ in range(2) for destination in range(3)
    ]
    for group in found:
        selection = Selection(group=fingerprint_of(group.group))
        ids = await all_pages(operator, selection, 3)
        assert ids == sorted(ids)
        assert (ids[-1], len(ids)) == (group.example, 10)
        assert group.error == f"of {group.example} bytes"
        assert group.first < group.last
    only = await operate.groups(operator, Selection(type="t0", destination="d1", error="BYTES"))
    assert [(group.type, group.destination) for group in only] == [("t0", "d1")]
    assert await operate.groups(operator, Selection(error="other")) == []


async def test_another_error_is_another_group_and_an_act_takes_one(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await write(observer, 6, type="'t'", destination="'d'")
    await park(observer, "id <= 4", "'cannot reach 10.0.0.' || id || ', offset ' || id * 1000")
    await park(observer, "id > 4", "'not allowed'")
    many, few = await operate.groups(operator, Selection())
    assert (many.rows, few.rows) == (Count(4), Count(2))
    await operator.rollback()
    assert (await operate.skip(operator, Selection(group=fingerprint_of(many.group)))).rows == 4
    assert [group.group for group in await operate.groups(operator, Selection())] == [few.group]


async def test_what_was_parked_by_an_older_schema_is_a_group_too(
    observer: asyncpg.Connection, operator: AsyncConnection
) -> None:
    await write(observer, 2)
    async with observer.transaction():
        await observer.execute("SET LOCAL session_replication_role = replica")
        await park(observer, "true")
    (group,) = await operate.groups(operator, Selection())
    assert (group.rows, group.type, group.destination) == (Count(2), None, None)
    assert await all_pages(operator, Selection(group=fingerprint_of(group.group)), 5) == [1, 2]


@pytest.mark.parametrize("name", ["x", "-1", "1" * 17, ""])
def test_what_is_no_group_is_said(name: str) -> None:
    with pytest.raises(OperatorError, match="is no group"):
        fingerprint_of(name)


# However much there is


@pytest.mark.slow
async def test_each_look_at_a_large_queue_reads_a_bounded_number_of_rows(
    database: str, observer: asyncpg.Connection
) -> None:
    await write(observer, ROWS, key="'k' || g")
    await park(observer, "id % 10 = 0")
    await observer.execute(
        "UPDATE outbox_queue SET due_at = now() + interval '1 hour', last_error = 'x', blocks = true"
        " WHERE id % 1000 = 1"
    )
    looks: dict[str, tuple[Callable[[AsyncConnection], Awaitable[Any]], int]] = {
        "list": (lambda c: operate.page(c, Selection(), 50), 5_000),
        "parked": (lambda c: operate.page(c, Selection(states=["parked"]), 50), 5_000),
        "retrying": (lambda c: operate.page(c, Selection(states=["retrying"]), 50), 5_000),
        "a key": (lambda c: operate.page(c, Selection(sink="kafka", destination="d1", key="k1"), 50), 10_000),
        "groups": (lambda c: operate.groups(c, Selection()), 30_000),
        "status": (operate.status, 120_000),
        # At 50,000 rows of the queue, with their messages and the holds before them.
        "what nothing finds": (lambda c: operate.page(c, Selection(error="nothing"), 50), 250_000),
        "stuck": (lambda c: operate.tally(c, Selection(stuck=True)), 250_000),
    }
    for name, (look, most) in looks.items():
        async with connect(Settings(database_url=database)) as operator:
            await look(operator)
            assert await operator.scalar(text(READ)) < most, name
    async with connect(Settings(database_url=database)) as operator:
        assert await operate.tally(operator, Selection(stuck=True)) == Count(0, more=True)
