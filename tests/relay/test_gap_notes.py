"""Whoever expires, skips or parks a delivery leaves a note for who reads its destination."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import pytest

from outbox import operate
from outbox.observe import watch
from outbox.relay import Relay
from outbox.schema import in_schema
from outbox.schema.grants import grants
from outbox.schema.notes import NOTE, note_gaps
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand, Plan, delivered
from tests.relay.test_crashes import SHORT_LEASE
from tests.relay.traffic import SINK, arrived, settings_of, skip, state, write
from tests.support import sql
from tests.support.relay_process import RelayProcess

TEXT = '{"event":"resync_required"}'
NOTING = {f"OUTBOX_{SINK.upper()}_GAP_NOTE": TEXT, "OUTBOX_MAX_RETRIES": "1"}


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | NOTING


async def notes(connection: asyncpg.Connection, *destinations: str) -> Sequence[Any]:
    """The notes that were written, all of them or those to some destinations."""
    found: list[Any] = await connection.fetch(
        "SELECT o.*, r.outcome FROM outbox o LEFT JOIN outbox_receipts r USING (id)"
        " WHERE o.type = $1 AND (cardinality($2::text[]) = 0 OR destination = ANY ($2)) ORDER BY id",
        NOTE,
        list(destinations),
    )
    return found


async def test_what_expires_is_noted_once_for_each_destination_and_the_note_arrives(
    by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    for destination in ("a", "a", "b"):
        await write(connection, ["k"] * 3, destination=destination, available_in=-9, expires_in=-5)
    await delivered(by_hand, connection)
    written = await notes(connection)
    assert sorted(note["destination"] for note in written) == ["a", "b"]
    for note in written:
        assert (note["sink"], note["payload"], note["outcome"]) == (SINK, TEXT.encode(), "delivered")
        assert (note["key"], note["expires_at"], note["available_at"]) == (None, None, None)
        assert note["message_id"].version == 7
    assert sorted(gate.arrived) == sorted(note["id"] for note in written)


async def test_what_is_parked_is_noted_past_its_own_held_key(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    async with ByHand.made({**environment, "OUTBOX_ON_PARK": "hold"}) as relay:
        await relay.beat()
        head, _ = await write(connection, ["k", "k"])
        gate.set(Fault(kind="permanent", id=head))
        await relay.work()
        (note,) = await notes(connection)
        await relay.work()
        assert gate.arrived == [note["id"]]


@pytest.mark.parametrize("outcome", ["expired", "parked"])
async def test_a_note_is_sent_by_another_relay_where_the_one_that_wrote_it_was_killed(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    gate: Gate,
    relay_process: Callable[..., Awaitable[RelayProcess]],
    outcome: str,
) -> None:
    environment |= SHORT_LEASE
    gate.set(Fault(kind="permanent", key="k"))
    late: dict[str, Any] = {"available_in": -9, "expires_in": -5} if outcome == "expired" else {}
    await write(connection, ["k"], destination="lost", **late)
    # That is told right after the statement that wrote the note, too.
    victim = await relay_process(environment, kill_at=f"delivery.{outcome}")
    assert await victim.exited() == -9
    (note,) = await notes(connection)
    assert (note["destination"], note["outcome"], gate.arrived) == ("lost", None, [])
    gate.set()
    async with Relay(settings_of(environment)):
        await arrived(gate, 1)
    assert gate.arrived == [note["id"]]
    assert len(await notes(connection)) == 1


async def test_what_a_person_skips_is_noted(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection
) -> None:
    await skip(environment, *await write(connection, ["k", "l"]))
    (note,) = await notes(connection)
    await delivered(by_hand, connection)
    assert (await notes(connection))[0]["outcome"] == "delivered"
    assert note["payload"] == TEXT.encode()


async def test_lost_messages_that_repair_gives_up_are_noted(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection
) -> None:
    await write(connection, ["k", "l"])
    await connection.execute("DELETE FROM outbox_queue")
    async with operate.connect(settings_of(environment)) as operator:
        assert (await operate.repair(operator, lost="skip")).lost == 2
    assert len(await notes(connection)) == 1
    await delivered(by_hand, connection)


async def test_while_a_note_waits_there_is_no_second_one_and_later_there_is(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection
) -> None:
    first, second = await write(connection, ["k", "l"])
    await skip(environment, first)
    await skip(environment, second)
    assert len(await notes(connection)) == 1
    await by_hand.work()
    await write(connection, ["n"], available_in=-9, expires_in=-5)
    await delivered(by_hand, connection)
    assert [note["outcome"] for note in await notes(connection)] == ["delivered"] * 2


async def test_there_is_never_a_note_for_a_note(
    environment: dict[str, str], by_hand: ByHand, connection: asyncpg.Connection, gate: Gate
) -> None:
    gate.set(Fault(kind="permanent"))
    await write(connection, ["k"], destination="parked")
    await by_hand.work()
    await by_hand.work()
    (parked,) = await notes(connection)
    assert await connection.fetchval("SELECT count(*) FROM outbox_queue WHERE parked_at IS NOT NULL") == 2
    await skip(environment, parked["id"])
    assert len(await notes(connection)) == 1
    # One that was given up waits no more: what is lost then is told anew.
    await write(connection, ["k"], destination="parked")
    await by_hand.work()
    assert len(await notes(connection)) == 2


@pytest.mark.usefixtures("by_hand")
async def test_what_somebody_wrote_under_its_type_keeps_no_note_away(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO outbox (message_id, type, sink, destination, key, available_at)"
        f" SELECT gen_random_uuid(), '{NOTE}', '{SINK}', 'slots', key, available_at"
        " FROM (VALUES ('k', NULL), (NULL, timestamptz '9999-01-01')) AS theirs (key, available_at)"
    )
    await skip(environment, *await write(connection, ["a"], destination="slots"))
    assert [note["payload"] for note in await notes(connection)].count(TEXT.encode()) == 1


async def test_a_sink_without_a_note_writes_none(
    environment: dict[str, str], connection: asyncpg.Connection
) -> None:
    plain = {name: value for name, value in environment.items() if name not in NOTING}
    async with ByHand.made(plain) as relay:
        await relay.beat()
        await write(connection, ["k"], available_in=-9, expires_in=-5)
        await delivered(relay, connection)
    assert await notes(connection) == []


@pytest.mark.parametrize("text", ["", "x" * 100_000, "ä\u2603"])
async def test_a_text_that_somebody_put_there_by_hand_stops_nobody(
    by_hand: ByHand, connection: asyncpg.Connection, text: str
) -> None:
    await connection.execute("UPDATE outbox_sinks SET gap_note = $1", text)
    await write(connection, ["k"], available_in=-9, expires_in=-5)
    await delivered(by_hand, connection)
    assert [note["payload"] for note in await notes(connection)] == [text.encode()] * (0 < len(text) < 10)


async def test_relay_and_operator_may_write_notes_with_their_own_rights_alone(
    environment: dict[str, str], database: str, connection: asyncpg.Connection
) -> None:
    async with sql.role(database) as (relay, relay_url), sql.role(database) as (operator, operator_url):
        for statement in (*grants("relay", relay), *grants("operator", operator)):
            await connection.execute(statement)
        async with ByHand.made({**environment, "OUTBOX_DATABASE_URL": relay_url}) as made:
            await made.beat()
            await write(connection, ["k"], destination="late", available_in=-9, expires_in=-5)
            await delivered(made, connection)
            ids = await write(connection, ["k"], destination="skipped")
            await skip({**environment, "OUTBOX_DATABASE_URL": operator_url}, *ids)
        assert [note["destination"] for note in await notes(connection)] == ["late", "skipped"]


async def test_a_relay_whose_grants_are_older_than_notes_records_what_it_gives_up_all_the_same(
    environment: dict[str, str], database: str, connection: asyncpg.Connection, gate: Gate
) -> None:
    async with sql.role(database) as (relay, url):
        for statement in grants("relay", relay):
            await connection.execute(statement)
        await connection.execute(f"REVOKE INSERT ON outbox FROM {relay}")
        with watch() as events:
            async with ByHand.made({**environment, "OUTBOX_DATABASE_URL": url}) as made:
                await made.beat()
                await write(connection, ["k"], available_in=-9, expires_in=-5)
                bad, _ = await write(connection, ["bad", "good"])
                gate.set(Fault(kind="permanent", id=bad))
                await delivered(made, connection, but=1)
    assert (await state(connection, bad))["state"] == "parked"
    assert await notes(connection) == []
    reasons = {event.fields["reason"] for event in events.matching("notes.forbidden")}
    assert reasons == {"InsufficientPrivilegeError: permission denied for table outbox"}


@pytest.mark.usefixtures("by_hand")
async def test_whether_a_note_waits_is_found_without_reading_messages(
    connection: asyncpg.Connection,
) -> None:
    (lost, *_) = await write(connection, ["k"] * 5_000)
    statement = in_schema(
        "EXPLAIN (ANALYZE, FORMAT JSON) WITH lost AS (SELECT $2 AS sink, $1::bigint AS id)", None
    )
    await connection.execute("ANALYZE outbox; SET enable_seqscan = off")
    plan = Plan.of(await connection.fetchval(statement + in_schema(note_gaps("lost"), None), lost, SINK))
    assert plan.rows_read < 10
