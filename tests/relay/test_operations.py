"""Acts beside relays at work: nothing is lost, sent twice or overtaken, whoever acts or is killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from itertools import pairwise
from random import Random
from typing import Any

import asyncpg
import pytest

from outbox import operate
from outbox.observe import watch
from outbox.operate import Done, Selection, Who, Wish
from outbox.relay import Relay
from outbox.testing import Attempt, Fault, Gate
from tests.relay.traffic import SINK, emptied, inversions, settings_of, unexplained, write
from tests.support import sql
from tests.support.relay_process import RelayProcess
from tests.support.waiting import until

StartRelay = Callable[..., Awaitable[RelayProcess]]
HOLD = {"OUTBOX_ON_PARK": "hold"}


async def ask(environment: Mapping[str, str], act: operate.Act, selection: Selection, **how: Any) -> int:
    """What relays are to do."""
    async with operate.connect(settings_of(environment)) as operator:
        seen = await operate.preview(operator, Wish(act=act, selection=selection, **how))
        return await operate.ask(operator, seen, Who(reason="a test"))


async def ended(environment: Mapping[str, str], number: int) -> operate.Operation:
    """What came of it."""
    async with operate.connect(settings_of(environment)) as operator:

        async def has_ended() -> bool:
            return (await operate.operation(operator, number)).ended_at is not None

        await until(has_ended)
        return await operate.operation(operator, number)


async def write_parked(
    connection: asyncpg.Connection, rows: int, *, keys: int = 40, burst: int = 5
) -> list[int]:
    """So many, parked, in bursts of a key."""
    ids = await write(connection, [f"key-{number // burst % keys}" for number in range(rows)])
    await connection.execute(
        "UPDATE outbox_queue SET parked_at = now(), last_error = 'x', blocks = true WHERE id = ANY ($1)", ids
    )
    return ids


async def test_each_act_beside_relays_at_work_loses_repeats_and_inverts_nothing(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    environment |= HOLD
    chance = Random(7)  # noqa: S311 - chance in tests
    gate.set(Fault(kind="transient", probability=0.05), Fault(kind="permanent", probability=0.02))
    keys = [f"key-{number}" for number in range(12)]
    ids: list[int] = []
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(Relay(settings_of(environment)))
        for _ in range(25):
            ids += await write(connection, [chance.choice(keys) for _ in range(60)])
            act: operate.Act = chance.choice(["park", "retry", "skip"])
            chosen = Selection(key=chance.choice(keys), states=["parked"] if act == "skip" else [])
            await ask(environment, act, chosen)
        gate.set()

        async def is_sent() -> bool:
            await ended(environment, await ask(environment, "retry", Selection()))
            left: int = await connection.fetchval("SELECT count(*) FROM outbox_queue")
            return left == 0

        await until(is_sent)
    skipped = await connection.fetch("SELECT id FROM outbox_receipts WHERE outcome = 'skipped'")
    assert sorted([*gate.arrived, *(row["id"] for row in skipped)]) == ids
    assert inversions(gate.attempts) == []
    assert unexplained(gate.attempts, ()) == []


async def test_an_operation_whose_relay_is_killed_between_two_batches_goes_on(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, relay_process: StartRelay
) -> None:
    environment |= HOLD
    ids = await write_parked(connection, 24_000, keys=800)
    number = await ask(environment, "retry", Selection(sink=SINK))
    victim = await relay_process(environment, kill_at="operation.batch")
    assert await victim.exited() == -9
    async with operate.connect(settings_of(environment)) as operator:
        left = await operate.operation(operator, number)
    assert 0 < left.rows < len(ids)
    async with Relay(settings_of(environment)):
        assert (await ended(environment, number)).rows == len(ids)
        await emptied(connection)
    assert set(gate.arrived) == set(ids)
    assert inversions(gate.attempts) == []
    assert unexplained(gate.attempts, {victim.pid}) == []


async def test_an_operation_whose_relay_is_killed_in_the_middle_of_a_batch_goes_on(
    environment: dict[str, str],
    database: str,
    connection: asyncpg.Connection,
    gate: Gate,
    relay_process: StartRelay,
) -> None:
    environment |= HOLD
    ids = await write_parked(connection, 3_000)
    victim = await relay_process(environment)
    await victim.event("relay.ready")
    async with sql.connection(database) as somebody, somebody.transaction():
        # Which the batch changes last.
        await somebody.execute("SELECT FROM outbox_sinks FOR UPDATE")
        number = await ask(environment, "retry", Selection(sink=SINK))

        async def is_in_the_middle() -> bool:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
            return bool(await connection.fetchval(waiting))

        await until(is_in_the_middle)
        victim.kill()
        await victim.exited()
    async with Relay(settings_of(environment)):
        assert (await ended(environment, number)).rows == len(ids)
        await emptied(connection)
    assert set(gate.arrived) == set(ids)
    assert inversions(gate.attempts) == []
    assert unexplained(gate.attempts, {victim.pid}) == []


async def test_a_replay_that_is_interrupted_goes_on_each_message_once_more_in_order_none_missing(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, relay_process: StartRelay
) -> None:
    ids = await write(connection, [f"key-{number // 5 % 7}" for number in range(2_600)])
    async with Relay(settings_of(environment)):
        await emptied(connection)
    number = await ask(environment, "replay", Selection(sink=SINK))
    victim = await relay_process(environment, kill_at="operation.batch")
    assert await victim.exited() == -9
    async with Relay(settings_of(environment)):
        assert (await ended(environment, number)).rows == len(ids)
        await emptied(connection)
    again = [attempt for attempt in gate.attempts if attempt.arrived and attempt.id > ids[-1]]
    messages = await connection.fetch("SELECT message_id FROM outbox WHERE id = ANY ($1)", ids)
    assert {attempt.message_id for attempt in again} == {str(row["message_id"]) for row in messages}
    assert len({attempt.id for attempt in again}) == len(ids)
    assert inversions(again) == []
    assert unexplained(again, {victim.pid}) == []
    assert _order(gate.attempts, of=set(ids)) == _order(again)


def _order(attempts: list[Attempt], of: set[int] | None = None) -> dict[str, list[str]]:
    """The messages of each key, each where it came first."""
    found: dict[str, dict[str, None]] = {}
    for attempt in attempts:
        if attempt.arrived and attempt.key is not None and (of is None or attempt.id in of):
            found.setdefault(attempt.key, {}).setdefault(attempt.message_id)
    return {key: list(messages) for key, messages in found.items()}


async def test_two_people_act_on_the_same_group_at_once(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    ids = await write_parked(connection, 4_000)
    group = await connection.fetchval("SELECT fingerprint FROM outbox_queue LIMIT 1")

    async def act(how: Any) -> Done:
        async with operate.connect(settings_of(environment)) as operator:
            done: Done = await how(operator, Selection(group=group))
            return done

    async with Relay(settings_of(environment)):
        retried, again, skipped = await asyncio.gather(
            *map(act, (operate.retry, operate.retry, operate.skip))
        )
        for left in (retried, again, skipped):
            assert left.rows <= len(ids)

        async def is_sent() -> bool:
            # What one found busy, and what comes after it in its key, is left parked.
            await act(operate.retry)
            left: int = await connection.fetchval("SELECT count(*) FROM outbox_queue")
            return left == 0

        await until(is_sent)
    outcomes = await connection.fetch("SELECT id FROM outbox_receipts WHERE outcome = 'skipped'")
    assert len(outcomes) == skipped.rows
    assert sorted([*gate.arrived, *(row["id"] for row in outcomes)]) == ids
    assert inversions(gate.attempts) == []


async def test_what_is_parked_by_hand_while_it_is_on_its_way_stays_so(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    environment |= HOLD
    ids = await write(connection, ["a"] * 5)
    gate.set(Fault(kind="hold"))
    with watch() as events:
        async with Relay(settings_of(environment)):
            await events.wait_for("pump.fetched", rows=5)
            await ended(environment, await ask(environment, "park", Selection(key="a"), error="by hand"))
            gate.set(Fault(kind="transient"))
            await events.wait_for("pump.settled")
            gate.set()
            rows = await connection.fetch("SELECT id FROM outbox_queue WHERE parked_at IS NOT NULL")
            assert len(rows) == 5
            await ended(environment, await ask(environment, "retry", Selection(key="a")))
            await emptied(connection)
    assert gate.arrived == ids
    assert all(before < after for before, after in pairwise(gate.arrived))


async def test_the_hook_hears_what_came_of_an_operation(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    del gate
    heard: list[operate.Recorded] = []
    monkeypatch.setattr(sys.modules[__name__], "HEARD", heard.append, raising=False)
    (id_,) = await write(connection, ["a"])
    async with Relay(settings_of({**environment, "OUTBOX_ACT_HOOK": f"{__name__}:HEARD"})):
        with watch() as events:
            number = await ask(environment, "skip", Selection(ids=[id_]))
            await events.wait_for("operation.ended", operation=number)

            async def is_told() -> bool:
                return bool(heard)

            await until(is_told)
    assert [(each.act, each.phase, each.operation) for each in heard] == [("skip", "done", number)]
