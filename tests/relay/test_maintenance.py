"""Old delivered rows go, nothing else does, and delivering never waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from outbox.observe import Watch, watch
from outbox.relay import Relay, prune
from outbox.relay.prune import PRUNE
from outbox.relay.store import relay_connection
from outbox.schema import in_schema
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand
from tests.relay.traffic import SINK, emptied, settings_of, write
from tests.support import sql
from tests.support.postgres import Cluster
from tests.support.waiting import until

QUICK_PRUNE = {"OUTBOX_RETENTION": "1h", "OUTBOX_PRUNE_INTERVAL_SECONDS": "0.05"}


async def make_old(connection: asyncpg.Connection, *ids: int) -> None:
    await connection.execute(
        "UPDATE outbox_receipts SET settled_at = now() - interval '2 hours' WHERE id = ANY ($1)", ids
    )


@asynccontextmanager
async def working(environment: dict[str, str]) -> AsyncIterator[Watch]:
    """A relay at work."""
    with watch() as events:
        async with Relay(settings_of({**environment, **QUICK_PRUNE})):
            yield events


async def test_only_what_was_settled_long_ago_goes_with_its_receipt(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    parked, waiting = await write(connection, ["parked", "waiting"])
    old, recent = await write(connection, ["old", "recent"])
    gate.set(Fault(kind="permanent", key="parked"), Fault(kind="transient", key="waiting"))
    await by_hand.turn()
    await make_old(connection, old)
    await connection.execute("UPDATE outbox SET created_at = now() - interval '2 hours'")
    gate.set(Fault(kind="transient", key="waiting"))
    async with working(environment) as events:
        await events.wait_for("prune.done", rows=1)
    left = await connection.fetch("SELECT id FROM outbox ORDER BY id")
    assert [row["id"] for row in left] == [parked, waiting, recent]
    assert await connection.fetchval("SELECT array_agg(id) FROM outbox_receipts") == [recent]


async def test_rows_go_in_small_batches(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection
) -> None:
    ids = await write(connection, [None] * 25)
    await by_hand.turn()
    await make_old(connection, *ids)
    statement = in_schema(PRUNE, None)
    after: int | None = 0
    batches = []
    async with relay_connection(settings_of(environment), "pruning") as pruning:
        while after is not None:
            rows, after = await pruning.fetchrow(statement, after, 10, 3_600.0, [SINK])
            batches.append(rows)
    assert batches == [10, 10, 5, 0]
    assert await connection.fetchval("SELECT count(*) FROM outbox") == 0


async def settle(connection: asyncpg.Connection, ids: Iterable[int], *, old: bool) -> None:
    """Make receipts of what was written."""
    await connection.execute(
        "WITH done AS (DELETE FROM outbox_queue WHERE id = ANY ($1) RETURNING id)"
        " INSERT INTO outbox_receipts (id, outcome, attempts, settled_at)"
        " SELECT id, 'delivered', 0, now() - $2::bool::int * interval '2 hours' FROM done",
        list(ids),
        old,
    )


async def test_what_is_old_goes_whatever_the_order_of_ids(
    environment: dict[str, str], connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "_ROWS", 50)
    monkeypatch.setattr(prune, "_IN_VAIN", 3)
    ids = await write(connection, [None] * 2_000)
    # Blocks of both, the first and the longest of them recent, more than a round looks at in vain.
    recent = {*ids[:400], *ids[700:800], *ids[1_500:1_520]}
    await settle(connection, recent, old=False)
    await settle(connection, set(ids) - recent, old=True)

    async def is_all_gone() -> bool:
        return bool(await connection.fetchval("SELECT count(*) = $1 FROM outbox", len(recent)))

    async with working(environment):
        await until(is_all_gone)
    assert {id_ for (id_,) in await connection.fetch("SELECT id FROM outbox_receipts")} == recent
    assert {id_ for (id_,) in await connection.fetch("SELECT id FROM outbox")} == recent


async def test_a_round_with_nothing_to_do_looks_at_so_much_and_goes_on_there(
    environment: dict[str, str], connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "_ROWS", 10)
    monkeypatch.setattr(prune, "_IN_VAIN", 3)
    ids = await write(connection, [None] * 100)
    await settle(connection, ids, old=False)
    looked: list[int] = []
    pruning = prune.Prune(settings_of({**environment, **QUICK_PRUNE}))
    connection.add_query_logger(lambda query: looked.append("looked" in query.query))
    for steps in (1 + 4, 1 + 4, 1 + 3):  # the last comes to the end
        looked.clear()
        await pruning.round(connection, asyncio.Event())
        assert sum(looked) == steps


async def test_what_another_still_needs_stays(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    mine, again = await write(connection, [None] * 2)
    (others,) = await write(connection, [None], sink="theirs")
    (nobodys,) = await write(connection, [None], sink="nobodys")
    (gone,) = await write(connection, [None])
    await settle(connection, [mine, again, others, nobodys, gone], old=True)
    await connection.execute("DELETE FROM outbox WHERE id = $1", gone)
    await connection.execute(
        "INSERT INTO outbox_relays (relay_id, name, version, sinks, expires_at)"
        " VALUES (gen_random_uuid(), 'host:1', '1', '{theirs}', now() + interval '1 hour')"
    )
    # Somebody has put it there, to send it again.
    await connection.execute(
        "INSERT INTO outbox_queue (sink, lane, id, key_hash, destination_hash, bytes, first_due_at, due_at)"
        " SELECT sink, lane, id, key_hash, 0, 1, now(), now() + interval '1 hour' FROM outbox WHERE id = $1",
        again,
    )
    pruning = prune.Prune(settings_of({**environment, **QUICK_PRUNE}))
    await pruning.round(connection, asyncio.Event())
    left = "SELECT array_agg(id ORDER BY id) FROM"
    assert await connection.fetchval(f"{left} outbox_receipts") == [again, others]
    assert await connection.fetchval(f"{left} outbox") == [again, others]


async def test_a_prune_that_fails_stops_nothing(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    (old,) = await write(connection, [None])
    await by_hand.turn()
    await by_hand.leave()
    await make_old(connection, old)
    await connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'nothing is deleted here'; END $$"
    )
    await connection.execute("CREATE TRIGGER no BEFORE DELETE ON outbox EXECUTE FUNCTION refuse()")
    async with working(environment) as events:
        await events.wait_for("prune.failed", count=2, reason="RaiseError: nothing is deleted here")
        ids = await write(connection, [None] * 3)
        await emptied(connection)
    assert sorted(gate.arrived) == [old, *ids]
    assert not events.matching("relay.lost_database")


async def test_a_prune_does_not_wait_for_whoever_locks_an_old_row(
    environment: dict[str, str],
    by_hand: ByHand,
    connection: asyncpg.Connection,
    database: str,
    gate: Gate,
) -> None:
    (old,) = await write(connection, [None])
    await by_hand.turn()
    await by_hand.leave()
    await make_old(connection, old)
    async with sql.connection(database) as locking:
        await locking.execute("BEGIN")
        await locking.execute("SELECT FROM outbox WHERE id = $1 FOR UPDATE", old)
        async with working(environment) as events:
            await events.wait_for("prune.failed", count=2)
            ids = await write(connection, [None] * 3)
            await emptied(connection)
            await locking.execute("COMMIT")
            await events.wait_for("prune.done", rows=1)
    assert sorted(gate.arrived) == [old, *ids]
    assert not events.matching("relay.lost_database")


@pytest.mark.parametrize("kind", ["open", "in another database", "prepared"])
async def test_whoever_holds_the_floors_back_is_named(
    kind: str,
    environment: dict[str, str],
    postgres: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outbox.relay.maintenance._LONG_WRITER_SECONDS", 0.0)
    url = postgres.url if kind == "in another database" else environment["OUTBOX_DATABASE_URL"]
    async with sql.connection(url) as writer:
        await writer.execute("BEGIN")
        await writer.fetchval("SELECT pg_current_xact_id()")
        pid: int | None = writer.get_server_pid()
        if kind == "prepared":
            await writer.execute("PREPARE TRANSACTION 'forgotten'")
            pid = None
        try:
            async with working(environment) as events:
                event = await events.wait_for("floor.held", pid=pid)
        finally:
            await writer.execute("ROLLBACK PREPARED 'forgotten'" if kind == "prepared" else "ROLLBACK")
    assert event.fields["age"] > 0
    if kind == "prepared":
        assert event.fields["prepared"] == "forgotten"
