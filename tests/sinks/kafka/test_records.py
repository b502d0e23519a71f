from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from outbox.message import Delivery
from outbox.sinks.kafka.records import CODECS, RecordBatch, moment, record_of
from tests.support.deliveries import delivery

GOLDEN = Path(__file__).parent / "golden" / "kafka_headers.json"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WRITTEN = datetime(2025, 7, 24, 10, 30, 0, 123456, tzinfo=UTC)
ROW_HEADERS = {
    "schema_version": "1",
    "source_service": "essay-lifecycle-service",
    "content_type": "application/json",
    "correlation_id": "6f1c1a3e-8f5b-4d1c-9a39-0a4b6c1f2e3d",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "größe": "30 Aufsätze",
}


def written(headers: dict[str, Any] | None = None, **fields: Any) -> Delivery:
    fixed = {
        "message_id": UUID("0192f0c4-5a3b-7c1d-8e2f-3a4b5c6d7e8f"),
        "type": "huleedu.els.essay.slot.assigned.v1",
        "payload": b"{}",
        "created_at": WRITTEN,
    }
    return delivery("huleedu.els.essay.slot.assigned.v1", "batch-123", headers=headers, **fixed | fields)


CASES = {
    "plain": (written(), None),
    "with headers": (written(ROW_HEADERS), None),
    "occurred before it was written": (written({"occurred_at": "2025-07-24T12:29:58+02:00"}), None),
    "replayed": (
        written(
            {"occurred_at": "2025-07-01T00:00:00Z"}, replay_id=UUID("0192f0c4-0000-7000-8000-000000000001")
        ),
        None,
    ),
    "cloudevents": (written(ROW_HEADERS), "outbox-relay"),
    "cloudevents, little known": (written(), "outbox-relay"),
}


def test_the_headers_are_as_they_always_were() -> None:
    found = {}
    for name, (row, source) in CASES.items():
        timestamp, key, value, headers = record_of(row, source)
        assert (key, value) == (b"batch-123", b"{}")
        found[name] = {"timestamp": timestamp, **{header: text.decode() for header, text in headers}}
        assert len(found[name]) == len(headers) + 1
    assert found == json.loads(GOLDEN.read_text())


def test_the_same_on_every_try() -> None:
    row = written(ROW_HEADERS)
    assert record_of(row, "x") == record_of(row._replace(attempts=3, head=True, uncertain=True), "x")


def test_a_row_cannot_replace_its_identity() -> None:
    headers = record_of(written({"message_id": "other", "event_type": "other", "mine": "kept"}), None)[3]
    assert dict(headers)["message_id"] == b"0192f0c4-5a3b-7c1d-8e2f-3a4b5c6d7e8f"
    assert dict(headers)["event_type"] == b"huleedu.els.essay.slot.assigned.v1"
    assert dict(headers)["mine"] == b"kept"
    assert len(headers) == len(dict(headers))


def test_a_row_cannot_shadow_what_cloudevents_says() -> None:
    row = written(ROW_HEADERS)
    said = record_of(row, "here")[3]
    shadows = {name: "other" for name, _ in said if name.startswith("ce_")} | {"content-type": "other"}
    assert len(shadows) == 6
    assert sorted(record_of(written(ROW_HEADERS | shadows), "here")[3]) == sorted(said)
    # Where the sink says none of it, they are the row's own.
    assert shadows.keys() < dict(record_of(written(shadows), None)[3]).keys()


@pytest.mark.parametrize("occurred_at", ["yesterday", "2025-07-24T10:30:00", "", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_is_none_is_passed_on_but_not_used(occurred_at: str) -> None:
    timestamp, _, _, headers = record_of(written({"occurred_at": occurred_at}), None)
    assert timestamp == 1753353000123
    assert dict(headers)["occurred_at"] == occurred_at.encode()


@pytest.mark.parametrize("value", [1, None, {"a": "b"}])
def test_headers_that_are_not_strings_make_no_record(value: object) -> None:
    with pytest.raises(ValueError, match="not all strings"):
        record_of(written({"x": value}), None)


def test_a_time_before_1970_counts_as_1970() -> None:
    assert record_of(written({"occurred_at": "1969-07-20T20:17:40Z"}), None)[0] == 0


@given(st.timedeltas(timedelta(days=-700_000), timedelta(days=2_900_000)), st.integers(-12, 12))
def test_moments(since: timedelta, hours: int) -> None:
    time = EPOCH + since
    milliseconds, text = moment(time)
    assert datetime.fromisoformat(text) == time
    assert text.endswith("Z")
    assert EPOCH + timedelta(milliseconds=milliseconds) <= time
    assert time < EPOCH + timedelta(milliseconds=milliseconds + 1)
    assert moment(time.astimezone(timezone(timedelta(hours=hours)))) == (milliseconds, text)


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_holds_what_was_appended(codec: str) -> None:
    batch = RecordBatch(CODECS[codec], 100_000)
    rows = [written(ROW_HEADERS), written(), written(payload=None), written(payload=b"\x00\xff" * 1_000)]
    for row in rows:
        assert batch.append(row.id, record_of(row, None))
    assert batch.rows == [row.id for row in rows]
    data = DefaultRecordBatch(batch.data)
    assert data.validate_crc()
    found = [(record.timestamp, record.key, record.value, record.headers) for record in data]
    assert found == [record_of(row, None) for row in rows]
    assert not batch.append(1, record_of(rows[0], None)), "closed once its bytes were asked for"


def test_a_batch_is_full_at_its_limit_but_takes_any_first_record() -> None:
    batch = RecordBatch(CODECS["none"], 1_000)
    assert batch.append(0, record_of(written(payload=b"x" * 2_000), None))
    assert not batch.append(1, record_of(written(), None))
    assert batch.rows == [0]
