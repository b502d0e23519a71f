"""The kinds of faults. Each does it, lets it last a while, and heals it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import NamedTuple

import asyncpg

from tests.faults.place import TOPICS, Place
from tests.support import sql
from tests.support.hands import ACTIONS, Hands
from tests.support.relay_process import RelayProcess

Do = Callable[[Place, Random], Awaitable[None]]


class Kind(NamedTuple):
    """A kind of fault."""

    what: str
    """What it is about: one fault at a time is about the same."""
    do: Do


_HOSTILE = """
    INSERT INTO outbox (message_id, type, sink, destination, key, payload, headers, available_at, expires_at)
    SELECT gen_random_uuid(), 'campaign.hostile', $1, $2, 'hostile', $3, $4::jsonb, $5, $6
"""
_TOO_LARGE = b"x" * 1_200_000


async def kill_a_relay(place: Place, random: Random) -> None:
    relay = place.relays[random.randrange(len(place.relays))]
    relay.kill()
    await _replace(place, relay)


async def leave_in_good_order(place: Place, random: Random) -> None:
    relay = place.relays[random.randrange(len(place.relays))]
    relay.resume()
    relay.terminate()
    await _replace(place, relay)


async def _replace(place: Place, relay: RelayProcess) -> None:
    of_first_release = bool(place.beside) and place.relays[0] is relay
    place.relays.remove(relay)
    await relay.exited(deadline=60.0)
    await place.start_relay(of_first_release=of_first_release)
    if of_first_release:
        place.relays.insert(0, place.relays.pop())


async def freeze_a_relay(place: Place, random: Random) -> None:
    """For less or more than its lease."""
    relay = place.relays[random.randrange(len(place.relays))]
    relay.pause()
    await asyncio.sleep(random.uniform(0.5, 8.0))
    relay.resume()


def crash(server: str) -> Do:
    async def kill(place: Place, random: Random) -> None:
        await place.servers[server].kill()
        await asyncio.sleep(random.uniform(0.0, 4.0))
        await place.servers[server].start()

    return kill


def restart(server: str) -> Do:
    async def stop(place: Place, _random: Random) -> None:
        await place.servers[server].start()

    return stop


def silence(server: str) -> Do:
    """Its connections stay open and nothing answers."""

    async def pause(place: Place, random: Random) -> None:
        place.servers[server].pause()
        await asyncio.sleep(random.uniform(0.5, 6.0))
        place.servers[server].resume()

    return pause


async def leave_a_transaction_open(place: Place, random: Random) -> None:
    async with sql.connection(place.database) as connection:
        await connection.execute("BEGIN; SELECT pg_current_xact_id()")
        await asyncio.sleep(random.uniform(1.0, 6.0))


async def hold_a_snapshot(place: Place, random: Random) -> None:
    async with sql.connection(place.database) as connection:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox_queue")
        await asyncio.sleep(random.uniform(1.0, 6.0))


async def end_all_sessions(place: Place, _random: Random) -> None:
    async with sql.connection(place.database) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def write_what_nobody_can_send(place: Place, random: Random) -> None:
    sink, destination = random.choice((("kafka", TOPICS[0]), ("redis", "campaign:0")))
    rows = [
        ("kafka", TOPICS[0], _TOO_LARGE, "{}", None, None),
        ("kafka", "no such topic!", b"x", "{}", None, None),
        ("kafka", f"campaign.missing.{random.randrange(1_000)}", b"x", "{}", None, None),
        ("nobody", "nowhere", b"x", "{}", None, None),
        (sink, destination, b"x", '{"occurred_at": "9999-12-31T23:59:59-14:00"}', None, None),
        (sink, destination, b"x", '{"ce_id": "mine", "message_id": "mine"}', None, None),
        (sink, destination, None, "{}", None, None),
    ]
    async with sql.connection(place.database) as connection:
        for row in random.sample(rows, 4):
            try:
                await connection.execute(_HOSTILE, *row)
            except asyncpg.PostgresError:
                continue  # The table refuses it.


async def flood_one_destination(place: Place, random: Random) -> None:
    async with sql.connection(place.database) as connection:
        await connection.execute(
            "INSERT INTO outbox (message_id, type, sink, destination, key, payload)"
            " SELECT gen_random_uuid(), 'campaign.good', 'kafka', $1, 'flood-' || $2 || '-' || n % 50, 'x'"
            " FROM generate_series(1, 5000) AS n",
            random.choice(TOPICS),
            str(random.getrandbits(48)),
        )


async def act_by_hand(place: Place, random: Random) -> None:
    async with sql.connection(place.database) as connection:
        hands = Hands(connection, random)
        for _ in range(3):
            await hands.act(random.choice(_ACTIONS))
            place.touched |= hands.touched


# All that was delivered so far would be touched, and nothing left to compare.
_ACTIONS = sorted(ACTIONS.keys() - {"truncate outbox_receipts"})

BY_HAND = {"somebody's hand is in the tables": Kind("postgres", act_by_hand)}
"""For relays of this version only, whose operators can mend it."""

KINDS: Mapping[str, Kind] = {
    "a relay is killed": Kind("relays", kill_a_relay),
    "a relay leaves in good order": Kind("relays", leave_in_good_order),
    "a relay is frozen": Kind("relays", freeze_a_relay),
    **{f"{name} crashes": Kind(name, crash(name)) for name in ("postgres", "kafka", "redis")},
    **{f"{name} restarts": Kind(name, restart(name)) for name in ("postgres", "kafka", "redis")},
    **{f"{name} is silent": Kind(name, silence(name)) for name in ("kafka", "redis")},
    "a transaction stays open": Kind("postgres", leave_a_transaction_open),
    "a snapshot is held": Kind("postgres", hold_a_snapshot),
    "all sessions end": Kind("postgres", end_all_sessions),
    "rows come that nobody can send": Kind("rows", write_what_nobody_can_send),
    "a flood comes for one topic": Kind("rows", flood_one_destination),
}
