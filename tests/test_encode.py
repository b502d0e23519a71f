from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox import Message, MessageError, new_id, write
from outbox.encode import Encoder
from outbox.schema import DESTINATION_BYTES, HEADERS, HEADERS_BYTES, KEY_BYTES, TYPE_BYTES
from outbox.settings import KafkaSettings, Settings, SinkSettings
from outbox.sinks.kafka.records import CODECS, RecordBatch, record_of
from tests.support import sql
from tests.support.deliveries import delivery

NOW = datetime(2025, 7, 24, 10, 30, tzinfo=UTC)
ENCODER = Encoder(Settings(sinks="audit=somewhere:Sink", own={"audit": SinkSettings(max_bytes=100)}))


def message(**changes: Any) -> Message:
    values: dict[str, Any] = {"type": "t", "sink": "kafka", "destination": "d", "payload": b""}
    return Message(**values | changes)


class Colour(Enum):
    RED = "red"


class Essay(BaseModel):
    essay_id: UUID
    at: datetime
    note: str | None = None


class Level(IntEnum):
    HIGH = 3


class Unknown:
    pass


# Payloads


@pytest.mark.parametrize(
    ("payload", "encoded", "content_type"),
    [
        (None, None, None),
        (b"\x00\xff", b"\x00\xff", None),
        (bytearray(b"ab"), b"ab", None),
        (memoryview(b"ab"), b"ab", None),
        ("grön 🎓", "grön 🎓".encode(), None),
        ("", b"", None),
        (
            {"name": "grön", "n": [1, 2.5, None, True]},
            '{"name":"grön","n":[1,2.5,null,true]}'.encode(),
            "json",
        ),
        ([], b"[]", "json"),
        (7, b"7", "json"),
        (
            {"id": UUID(int=1), "at": NOW, "price": Decimal("1.10"), "colour": Colour.RED},
            b'{"id":"00000000-0000-0000-0000-000000000001","at":"2025-07-24T10:30:00Z","price":"1.10","colour":"red"}',
            "json",
        ),
        (
            Essay(essay_id=UUID(int=1), at=NOW),
            b'{"essay_id":"00000000-0000-0000-0000-000000000001","at":"2025-07-24T10:30:00Z","note":null}',
            "json",
        ),
        ("NaN", b"NaN", None),
        (["NaN", "Infinity"], b'["NaN","Infinity"]', "json"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_payloads(payload: Any, encoded: bytes | None, content_type: str | None) -> None:
    row = ENCODER.row(message(payload=payload))
    assert row.payload == encoded
    assert json.loads(row.headers) == ({"content_type": "application/json"} if content_type else {})


@pytest.mark.parametrize(
    "payload",
    [float("nan"), {"a": [float("-inf")]}, Unknown(), {"a": Unknown()}, {"a": "\ud800"}, {"a": b"\xff"}],
    ids=["nan", "infinity", "object", "object within", "surrogate", "bytes within"],
)
def test_a_payload_that_json_cannot_hold(payload: Any) -> None:
    with pytest.raises(MessageError, match=f"payload: this {type(payload).__name__} has no form in JSON"):
        ENCODER.row(message(payload=payload))


def test_a_payload_that_holds_itself() -> None:
    payload: list[Any] = []
    payload.append(payload)
    with pytest.raises(MessageError, match="Circular"):
        ENCODER.row(message(payload=payload))


STRINGS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.none()
    | STRINGS
)


@given(
    st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(STRINGS, inner)).filter(
        lambda value: value is not None and not isinstance(value, str)
    )
)
def test_what_json_can_hold_comes_back(payload: Any) -> None:
    assert json.loads(ENCODER.row(message(payload=payload)).payload or b"") == payload


class Aliased(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float")
    essay_id: UUID = Field(serialization_alias="essayId")
    after: timedelta


class Wrapped(BaseModel):
    value: Any


@dataclass
class Plain:
    value: Any


VALUES = (
    SCALARS
    | st.floats()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.binary()
    | st.sampled_from([Colour.RED, Level.HIGH, Unknown()])
    | st.sets(st.integers(), max_size=1)
    | st.tuples(st.floats(), STRINGS)
    | st.builds(Essay, essay_id=st.uuids(), at=st.datetimes())
    | st.builds(Aliased, essay_id=st.uuids(), after=st.timedeltas())
    | st.builds(Wrapped, value=st.floats() | st.none() | st.lists(st.floats()))
    | st.builds(Plain, value=st.floats() | st.decimals())
)
PLACES: Sequence[tuple[Callable[[Any], Any], bytes, bytes]] = (
    (lambda value: [value], b"[", b"]"),
    (lambda value: (value,), b"[", b"]"),
    (lambda value: {"value": value}, b'{"value":', b"}"),
    (lambda value: Wrapped.model_construct(value=value), b'{"value":', b"}"),
    (Plain, b'{"value":', b"}"),
    (lambda value: [{"value": Wrapped.model_construct(value=[value])}], b'[{"value":{"value":[', b"]}}]"),
)


def encoded(payload: Any) -> bytes | None:
    """What is made of it; None: it is refused."""
    try:
        return ENCODER.row(message(payload=payload)).payload
    except MessageError:
        return None


@given(VALUES)
@settings(max_examples=500)
def test_what_becomes_of_a_value_does_not_depend_on_where_it_stands(value: Any) -> None:
    first, *others = (
        made and made.removeprefix(before).removesuffix(after)
        for place, before, after in PLACES
        for made in [encoded(place(value))]
    )
    assert others == [first] * len(others)
    if value is not None and not isinstance(value, str | bytes):
        assert encoded(value) == first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_a_model_that_would_make_null_of_a_number_is_refused(value: Any) -> None:
    with pytest.raises(MessageError, match=r"its model makes null of (nan|inf|-inf)"):
        ENCODER.row(message(payload=Wrapped(value=value)))


class Topic(StrEnum):
    SLOTS = "slots"


class OldTopic(str, Enum):  # noqa: UP042  as much code still has it
    SLOTS = "slots"


@pytest.mark.parametrize("name", [Topic.SLOTS, OldTopic.SLOTS])
def test_a_member_of_an_enumeration_of_strings_is_its_value(name: Any) -> None:
    row = ENCODER.row(message(type=name, destination=name, key=name, headers={name: name}))
    assert {type(text) for text in (row.type, row.sink, row.destination, row.key)} == {str}
    assert (row.type, row.destination, row.key) == ("slots",) * 3
    assert json.loads(row.headers) == {"slots": "slots"}


def test_redis_takes_no_tombstone() -> None:
    with pytest.raises(MessageError, match="None is a tombstone for Kafka, and says nothing in Redis"):
        ENCODER.row(message(sink="redis", payload=None))


@pytest.mark.parametrize("cloudevents", [False, True])
def test_what_is_written_for_kafka_is_never_over_its_largest_record_batch(*, cloudevents: bool) -> None:
    kafka = KafkaSettings(max_batch_bytes=40_000, cloudevents=cloudevents, client_id="c" * 300)
    encoder = Encoder(Settings(kafka=kafka, own={"kafka": SinkSettings(max_bytes=100_000_000)}))
    headers = {f"h{number}": "x" for number in range(60)} | {
        "source_service": "s" * 7_000,
        "content_type": "c" * 8_000,
    }
    large = message(type="t" * 255, key="k" * 1_024, headers=headers)
    fitting = 40_000
    with pytest.raises(MessageError, match="raise OUTBOX_KAFKA_MAX_BATCH_BYTES"):
        encoder.row(replace(large, payload=bytes(fitting)))
    while True:
        fitting -= 10
        try:
            row = encoder.row(replace(large, payload=bytes(fitting)))
        except MessageError:
            continue
        break
    stored = delivery(
        "d",
        row.key,
        type=row.type,
        payload=row.payload,
        headers=json.loads(row.headers),
        replay_id=UUID(int=1),
    )
    batch = RecordBatch(CODECS["none"], 40_000)
    assert batch.append(0, record_of(stored, kafka.client_id if cloudevents else None))
    assert 36_000 - 20_000 * (not cloudevents) < len(batch.data) <= 40_000


# Headers


def test_a_content_type_that_is_given_wins() -> None:
    row = ENCODER.row(message(payload={}, headers={"content_type": "application/cloudevents+json"}))
    assert json.loads(row.headers) == {"content_type": "application/cloudevents+json"}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"n": 1}, "header 'n' is of type int; give a str"),
        ({1: "n"}, "a header's name 1 is of type int"),
        ({"": "n"}, "a header's name '' is empty"),
        ({"a\0": "n"}, "has a NUL character"),
        ({"a": "secret\0"}, "header 'a' has a NUL character"),
        ({"a": "\ud800"}, "header 'a' has a lone surrogate"),
        ({"message_id": "x"}, "header 'message_id' is made by the sink"),
        ({"ce_id": "x"}, "header 'ce_id' is made by the sink"),
        ({"content-type": "x"}, "content_type and occurred_at can be given"),
        ({"occurred_at": "yesterday"}, "such as 2025-07-24T10:30:00Z"),
        ({"occurred_at": "2025-07-24T10:30:00"}, "with an offset"),
        ({"occurred_at": "9999-12-31T23:59:59-14:00"}, "is no RFC 3339 time"),
        ({str(number): "" for number in range(HEADERS + 1)}, f"at most {HEADERS} "),
        ({"a": "x" * HEADERS_BYTES}, "headers: 1 with 16,385 bytes"),
    ],
)  # fmt: skip
def test_headers_that_are_refused(headers: Any, said: str) -> None:
    with pytest.raises(MessageError, match=said) as caught:
        ENCODER.row(message(headers=headers))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("moment", ["2025-07-24T10:30:00Z", "2025-07-24T12:30:00.123+02:00"])
def test_when_it_occurred_can_be_given(moment: str) -> None:
    assert json.loads(ENCODER.row(message(headers={"occurred_at": moment})).headers) == {
        "occurred_at": moment
    }


# Addresses


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sink": "kafak"}, r"sink 'kafak' is not known \(did you mean 'kafka'\?\); use kafka, redis"),
        ({"sink": "xyz"}, r"sink 'xyz' is not known; use kafka, redis, audit, or name one of your own"),
        ({"type": ""}, "type '' is empty"),
        ({"type": "é" * TYPE_BYTES}, "has 510 bytes, and at most 255"),
        ({"destination": ""}, "destination '' is empty"),
        ({"destination": "a b"}, "destination 'a b' is no name for a Kafka topic"),
        ({"destination": "ws:1"}, "no name for a Kafka topic"),
        ({"destination": ".."}, "no name for a Kafka topic"),
        ({"destination": "topic\n"}, "no name for a Kafka topic"),
        ({"destination": "a" * 250}, "no name for a Kafka topic"),
        ({"destination": "a" * (DESTINATION_BYTES + 1), "sink": "redis"}, "has 513 bytes"),
        ({"destination": "a\0", "sink": "redis"}, "destination 'a.x00' has a NUL"),
        ({"key": "a\0"}, "key 'a.x00' has a NUL character"),
        ({"key": "\udfff"}, "lone surrogate"),
        ({"key": 5}, "key 5 is of type int; give a str"),
        ({"key": UUID(int=0)}, r"key UUID\('0+-.*is of type UUID"),
        ({"key": "k" * (KEY_BYTES + 1)}, "key 'k{79}… has 1,025 bytes, and at most 1,024 are allowed; s"),
        ({"message_id": str(UUID(int=0))}, "message_id '0+-.* is no uuid.UUID"),
    ],
)  # fmt: skip
def test_addresses_that_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(MessageError, match=said):
        ENCODER.row(message(**changes))


def test_an_empty_key_is_a_key() -> None:
    assert ENCODER.row(message(key="")).key == ""


def test_every_message_has_an_id_of_its_own() -> None:
    first, second = ENCODER.rows([message(), message()])
    assert UUID(first.message_id).version == 7
    assert first.message_id < second.message_id


# Sizes


def test_the_limit_is_that_of_the_sink() -> None:
    fitting = {"sink": "audit", "payload": b"x" * 90, "key": "é", "headers": {"abc": "defgh"}}
    assert ENCODER.row(message(**fitting))
    with pytest.raises(MessageError) as caught:
        ENCODER.row(message(**fitting | {"payload": b"x" * 91}))
    assert "payload: 101 bytes with all that goes with it, and audit takes 100;" in str(caught.value)
    assert "OUTBOX_AUDIT_MAX_BYTES" in str(caught.value)


# Times


@pytest.mark.parametrize("field", ["available_at", "expires_at"])
@pytest.mark.parametrize(
    "time", [datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), datetime.min.replace(tzinfo=UTC)]
)
def test_a_time_that_cannot_be_told_elsewhere_is_refused(field: str, time: datetime) -> None:
    with pytest.raises(MessageError, match=rf"{field} .* is out of range"):
        ENCODER.row(message(**{field: time}))


@pytest.mark.parametrize("field", ["available_at", "expires_at"])
@pytest.mark.parametrize("value", [datetime(2025, 1, 1), NOW.date(), "2025-07-24T10:30:00Z", 5.0])  # noqa: DTZ001
def test_times_need_a_time_zone(field: str, value: Any) -> None:
    with pytest.raises(MessageError, match=rf"{field} .* is no datetime with a time zone"):
        ENCODER.row(message(**{field: value}))


@pytest.mark.parametrize(
    "expires_at", [NOW, NOW - timedelta(seconds=1), NOW.astimezone(timezone(timedelta(hours=2)))]
)
def test_it_must_expire_after_it_is_available(expires_at: datetime) -> None:
    with pytest.raises(MessageError, match="is not after available_at"):
        ENCODER.row(message(available_at=NOW, expires_at=expires_at))


# What is accepted here, PostgreSQL takes and keeps


@pytest.fixture
async def connection(database: str) -> AsyncIterator[AsyncConnection]:
    async with sql.engine(database) as engine, engine.connect() as made:
        yield made


TIMES = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001 - hypothesis adds the time zone
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.just(UTC),
)
MESSAGES = st.builds(
    Message,
    type=st.text(min_size=1),
    sink=st.just("redis"),
    destination=st.text(min_size=1),
    key=st.none() | st.text(),
    payload=st.none() | st.binary() | st.text(),
    headers=st.dictionaries(st.text(min_size=1), st.text(), max_size=3),
    available_at=st.none() | TIMES,
    expires_at=st.none() | TIMES,
    message_id=st.builds(new_id),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=MESSAGES)
async def test_what_is_accepted_is_kept(connection: AsyncConnection, given: Message) -> None:
    try:
        assert await write(connection, given) == 1
    except MessageError:
        reject()
    row = (await connection.execute(text("SELECT * FROM outbox"))).one()
    await connection.rollback()
    for field in ("type", "destination", "key", "headers", "available_at", "expires_at", "message_id"):
        assert getattr(row, field) == getattr(given, field)
    assert row.payload == (given.payload.encode() if isinstance(given.payload, str) else given.payload)
