"""Where a walk was cut, or a round failed in its middle, nothing is passed by."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from outbox.devstack import Postgres
from outbox.policy import Backoff
from outbox.relay.breakers import SinkBreakers
from outbox.relay.store import Store
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand
from tests.relay.test_failover import Standby
from tests.relay.traffic import QUICK, SINK, inversions, write
from tests.support import programs, servers, sql
from tests.support.pgbouncer import PgBouncer
from tests.support.waiting import until

SMALL = {"OUTBOX_BATCH_SIZE": "100"}


async def keys_of_one_lane(
    connection: asyncpg.Connection, destination: str, lane: int, count: int
) -> list[str]:
    rows = await connection.fetch(
        "SELECT n::text AS key FROM generate_series(1, 100000) AS n"
        " WHERE hashtextextended(n::text, hashtextextended($1, 0)) & 63 = $2 LIMIT $3",
        destination,
        lane,
        count,
    )
    return [row["key"] for row in rows]


# A walk that its own limit cut is taken for one that saw everything


async def _turns(relay: ByHand, count: int) -> None:
    for _ in range(count):
        await relay.turn()
        await relay.beat()


async def _until_arrived(relay: ByHand, gate: Gate, ids: list[int]) -> None:
    """Take turns until all of these have arrived."""

    async def have() -> bool:
        await _turns(relay, 1)
        return set(ids) <= set(gate.arrived)

    await until(have)


async def test_a_probe_that_finds_only_what_is_expired_passes_nothing_by(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    """The walk was cut by the probe's own limit of 64, before its stop."""
    options = {"OUTBOX_BATCH_SIZE": "400", "OUTBOX_BREAKER_LONGEST_SECONDS": "1h"}
    async with ByHand.made(environment | options) as relay:
        await relay.beat()
        (key,) = await keys_of_one_lane(connection, "down", 7, 1)
        (other,) = await keys_of_one_lane(connection, "other", 7, 1)
        gate.set(Fault(kind="unavailable", scope="destination"))
        late = await write(connection, [key] * 70, destination="down", expires_in=3600)
        early = await write(connection, [key] * 100, destination="down")
        await write(connection, [other] * 1500, destination="other")
        last = await write(connection, [key] * 3, destination="down")
        await _turns(relay, 8)  # The breakers refuse; the frontier follows.
        assert relay.open_breakers == {"down", "other"}
        await connection.execute("UPDATE outbox SET expires_at = now() WHERE id = ANY ($1)", late)
        gate.set(Fault(kind="unavailable", scope="destination", destination="other"))
        await _until_arrived(relay, gate, [*early, *last])
        assert inversions(gate.attempts) == []
        assert [id_ for id_ in gate.arrived if id_ in {*early, *last}] == [*early, *last]


async def test_a_probe_among_scheduled_ones_passes_nothing_by(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    """Scheduled ones in line count towards the walk's limit, so its end is not taken for the line's."""
    async with ByHand.made(environment | SMALL | {"OUTBOX_BREAKER_LONGEST_SECONDS": "1h"}) as relay:
        await relay.beat()
        key, *others = await keys_of_one_lane(connection, "down", 7, 100)
        gate.set(Fault(kind="unavailable", destination="down", scope="destination"))
        (first,) = await write(connection, [key], destination="down")
        await relay.turn()
        assert relay.open_breakers == {"down"}
        # Written while it is down, so that its own floor does not pass them before they are due.
        await write(connection, others, destination="down", available_in=0.3)
        keyed = await write(connection, [key] * 5, destination="down")
        await connection.execute("DELETE FROM outbox_queue WHERE id = $1", first)  # An operator's skip.
        await _turns(relay, 10)  # The breaker refuses; the frontier follows.
        gate.set()
        await _until_arrived(relay, gate, keyed)
        newer = await write(connection, [key] * 5, destination="down")
        await _until_arrived(relay, gate, newer)
        assert inversions(gate.attempts) == []
        assert [id_ for id_ in gate.arrived if id_ in {*keyed, *newer}] == [*keyed, *newer]


# Settling fails after a hold was ended


async def _one_retried_with_followers(
    relay: ByHand, connection: asyncpg.Connection, gate: Gate
) -> tuple[int, list[int]]:
    gate.set(Fault(kind="transient", key="a"))
    head, *followers = await write(connection, ["a"] * 4)
    await relay.turn()
    assert await connection.fetchval("SELECT blocks FROM outbox_queue WHERE id = $1", head)
    # The floor passes the followers, which are held.
    await write(connection, ["b"] * 3)
    for _ in range(6):
        await relay.turn()
        await write(connection, ["b"])
    lane = await connection.fetchval("SELECT lane FROM outbox WHERE id = $1", head)
    await connection.execute("UPDATE outbox_queue SET due_at = now() + interval '1 s' WHERE blocks")
    for _ in range(6):
        await relay.turn()
    assert relay.lane(lane).floor >= followers[-1]
    gate.set()
    await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE blocks")
    return head, followers


async def test_followers_are_found_when_what_was_sent_is_recorded_after_an_sql_error(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    head, followers = await _one_retried_with_followers(by_hand, connection, gate)
    await connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'deadlock, say'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON outbox_receipts FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(asyncpg.RaiseError):
        await by_hand.turn()
    await connection.execute("DROP TRIGGER refuse ON outbox_receipts")
    # As `Pump.run` begins when `keep_running` runs it again: on the same session, owning the same lanes.
    pump = by_hand._parts.pumps[SINK][0]
    pump._lines.reconnect()
    await pump._deliver(by_hand._stores[SINK])
    newer = await write(connection, ["a"] * 2)
    for _ in range(10):
        await by_hand.turn()
    assert inversions(gate.attempts) == []
    assert [id_ for id_ in gate.arrived if id_ in {head, *followers, *newer}] == [head, *followers, *newer]


async def test_followers_are_found_when_another_failure_of_the_batch_cannot_be_recorded(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, followers = await _one_retried_with_followers(by_hand, connection, gate)
    gate.set(Fault(kind="transient", key="c"))
    await write(connection, ["c"])
    fail = Store.fail

    async def refuse(*_: Any) -> set[int]:
        raise asyncpg.DeadlockDetectedError("deadlock detected")

    monkeypatch.setattr(Store, "fail", refuse)
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await by_hand.turn()
    monkeypatch.setattr(Store, "fail", fail)
    gate.set()
    newer = await write(connection, ["a"] * 2)
    for _ in range(10):
        await by_hand.turn()
    assert inversions(gate.attempts) == []
    assert [id_ for id_ in gate.arrived if id_ in {head, *followers, *newer}] == [head, *followers, *newer]


# A pump in trouble keeps a breaker from ending, and so the others from sending


async def test_a_pump_that_never_answers_for_a_probe_keeps_the_others_from_it_for_a_while_only() -> None:
    now = 0.0
    breakers = SinkBreakers(
        "s", Backoff(first=1.0, longest=30.0), pumps=2, clock=lambda: now, jitter=lambda: 0.5
    )
    breakers.trip(None, "down")
    now = 2.0
    with breakers.admission(0) as admission:
        assert admission.probing
        breakers.found_nothing(None, 0)
    # Pump 1 fails with an SQL error each time, or its session's fetch times out; pump 0 gets new rows.
    now = 3600.0
    with breakers.admission(0) as admission:
        assert not admission.refused


# A walk that looks so far that it ends no more


async def test_a_fetch_that_took_too_long_looks_less_far(
    environment: dict[str, str], connection: asyncpg.Connection, database: str, gate: Gate
) -> None:
    """Beside an open transaction it looks ever further; after a time-out a pump connects anew."""
    gate.set(Fault(kind="unavailable", destination="down", scope="destination"))
    options = {"OUTBOX_BATCH_SIZE": "100", "OUTBOX_BREAKER_LONGEST_SECONDS": "1h"}
    async with ByHand.made(environment | options) as relay, sql.connection(database) as writer:
        await relay.beat()
        lines = relay._parts.pumps[SINK][0]._lines
        (key,) = await keys_of_one_lane(connection, "down", 7, 1)
        await write(connection, [key], destination="down")
        while "down" not in relay.open_breakers:
            await relay.turn()
        await writer.execute("BEGIN")
        await writer.fetchval("SELECT pg_current_xact_id()")
        await write(connection, [key] * 20_000, destination="down")
        walks = len(relay.request(down=["down"]).walks)
        shallow = lines.depth(walks)

        async def looks_further() -> bool:
            await relay.turn()
            return lines.depth(walks) > 4 * shallow

        await until(looks_further)
        lines.reconnect()
        assert lines.depth(walks) == shallow
        await writer.execute("COMMIT")

        async def has_passed() -> bool:
            await relay.turn()
            return relay.lane(7).floor > 20_000

        await until(has_passed)
        assert lines.depth(walks) == shallow


# Floors outlive the history in which they were true


async def test_floors_are_forgotten_after_a_failover_that_a_pooler_hides(
    own_postgres: Postgres, own_database: str, gate: Gate
) -> None:
    program = programs.find("pgbouncer") or servers.missing("pgbouncer is not installed")
    async with PgBouncer(program, own_database) as pgbouncer, Standby(own_postgres) as standby:
        await pgbouncer.start()
        environment = {
            **QUICK,
            **gate.environment(SINK),
            "OUTBOX_DATABASE_URL": pgbouncer.url,
            "OUTBOX_DATABASE_POOLER": "transaction",
        }
        async with ByHand.made(environment) as relay:
            await relay.beat()
            async with sql.connection(own_database) as connection:
                await write(connection, ["a"])
                await standby.stop()
                for _ in range(100):
                    await write(connection, ["a"])
                    await relay.turn()
                for _ in range(5):
                    await relay.turn()
            pgbouncer.pause()
            await own_postgres.kill()
            await standby.succeed()
            pgbouncer.resume()
            before = len(gate.arrived)
            async with sql.connection(own_database) as connection:
                new = await write(connection, ["a"] * 150)
                for _ in range(10):
                    await relay.turn()
                    await relay.beat()
            # The first may come again: the standby had not heard that it was delivered.
            assert [id_ for id_ in gate.arrived[before:] if id_ in new] == new
