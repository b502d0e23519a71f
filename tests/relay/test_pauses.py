"""What operators pause is not sent, others are, and nothing overtakes when it goes on, however that comes."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg
import pytest

from outbox import operate
from outbox.operate import Place
from outbox.testing import Gate
from tests.relay.by_hand import ByHand, delivered
from tests.relay.traffic import SINK, TOPIC, settings_of, write
from tests.support.waiting import until

PLACES = [Place(SINK), Place(SINK, TOPIC), Place(SINK, TOPIC, "a")]


async def pause(environment: Mapping[str, str], place: Place) -> None:
    async with operate.connect(settings_of(environment)) as operator:
        await operate.pause(operator, place, paused_by="a test")


async def end(
    environment: Mapping[str, str], connection: asyncpg.Connection, place: Place, *, by_itself: bool
) -> None:
    if by_itself:
        await connection.execute("UPDATE outbox_pauses SET until = now()")
        return
    async with operate.connect(settings_of(environment)) as operator:
        assert await operate.resume(operator, place)


@pytest.mark.parametrize(
    "case", [(place, by_itself) for place in PLACES for by_itself in (False, True)], ids=str
)
async def test_nothing_overtakes_what_waited_for_the_end_of_a_pause(
    environment: dict[str, str],
    by_hand: ByHand,
    connection: asyncpg.Connection,
    gate: Gate,
    case: tuple[Place, bool],
) -> None:
    place, by_itself = case
    paused = await write(connection, ["a"] * 3)
    others = await write(connection, ["b"] * 3)
    elsewhere = await write(connection, ["a"] * 3, destination="elsewhere")
    await pause(environment, place)
    passing = elsewhere if place.destination else []
    passing = others + passing if place.key else passing
    await by_hand.work()
    await by_hand.look_back()
    paused += await write(connection, ["a"] * 3)
    # Until the floors have passed what waits.
    for _ in range(4):
        await by_hand.turn()
    assert sorted(gate.arrived) == sorted(passing)
    await end(environment, connection, place, by_itself=by_itself)
    paused += await write(connection, ["a"] * 3)
    await delivered(by_hand, connection)
    assert [id_ for id_ in gate.arrived if id_ in paused] == paused
    assert len(gate.arrived) == len({*paused, *others, *elsewhere})


async def test_what_is_paused_is_walked_once(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    *_, last = await write(connection, ["a"] * 20_000)
    lane = by_hand.lane(await connection.fetchval("SELECT lane FROM outbox WHERE id = $1", last))
    await pause(environment, Place(SINK, TOPIC))

    async def has_walked_past_them() -> bool:
        await by_hand.turn()
        return lane.floor == last

    await until(has_walked_past_them)
    await connection.execute("VACUUM ANALYZE outbox_queue")
    await by_hand.look_back()
    assert lane.floor == last
    await by_hand.prepare_fetch()
    assert (await by_hand.explain_fetch()).rows_read < 200
    assert gate.arrived == []
