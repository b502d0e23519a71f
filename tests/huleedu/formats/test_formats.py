"""Each format as a file: what the code writes, what it reads, and the JSON Schema that ships with it."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from outbox import Message, Settings
from outbox.encode import Encoder
from outbox.huleedu.els.publish import event_message, excess_notification, notification, notification_message
from outbox.huleedu.events import (
    ASSESSMENT_PUBLISHED,
    CONTENT_PROVISIONED,
    ESSAYS_REGISTERED,
    EXCESS_CONTENT,
    PROVISIONING_COMPLETED,
    SLOT_ASSIGNED,
    SPELLCHECK_RESULTS,
    BatchContentProvisioningCompletedV1,
    EssayProcessingInputRefV1,
    EssaySlotAssignedV1,
    ExcessContentProvisionedV1,
)
from outbox.huleedu.formats import EXCESS_NOTIFICATION, FORMATS, NOTIFICATION, schema_of, shipped
from outbox.huleedu.tracing import continued
from outbox.sinks.kafka.records import record_of
from tests.support.deliveries import delivery

GOLDEN = Path(__file__).parent / "golden"

READ = (ESSAYS_REGISTERED, CONTENT_PROVISIONED, SPELLCHECK_RESULTS, ASSESSMENT_PUBLISHED)

MESSAGE_ID = UUID("0192f0c4-5a3b-7c1d-8e2f-3a4b5c6d7e8f")
CORRELATION_ID = UUID("6f1c1a3e-8f5b-4d1c-9a39-0a4b6c1f2e3d")
ASSIGNED_AT = datetime(2025, 7, 24, 10, 30, 0, tzinfo=UTC)
WRITTEN_AT = datetime(2025, 7, 24, 10, 30, 0, 1_500, tzinfo=UTC)

ASSIGNED = EssaySlotAssignedV1(
    batch_id="batch-123",
    essay_id="essay-456",
    file_upload_id="upload-789",
    text_storage_id="text-012",
    original_file_name="student_essay.txt",
    slot_index=2,
    correlation_id=CORRELATION_ID,
    timestamp=ASSIGNED_AT,
)
COMPLETED = BatchContentProvisioningCompletedV1(
    batch_id="batch-123",
    provisioned_count=1,
    expected_count=1,
    course_code="ENG5",
    user_id="teacher-1",
    essays_for_processing=(EssayProcessingInputRefV1(essay_id="essay-456", text_storage_id="text-012"),),
    correlation_id=CORRELATION_ID,
    timestamp=ASSIGNED_AT,
)
EXCESS = ExcessContentProvisionedV1(
    batch_id="batch-123",
    original_file_name="one_too_many.txt",
    text_storage_id="text-013",
    file_upload_id="upload-790",
    correlation_id=CORRELATION_ID,
    timestamp=ASSIGNED_AT,
)


def messages() -> dict[str, Message]:
    """One message of each format that ELS writes."""
    with continued({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}):
        body = notification(ASSIGNED, CORRELATION_ID, WRITTEN_AT, MESSAGE_ID)
        refused = excess_notification(EXCESS, WRITTEN_AT, MESSAGE_ID)
        return {
            SLOT_ASSIGNED: event_message(SLOT_ASSIGNED, ASSIGNED, CORRELATION_ID, WRITTEN_AT, MESSAGE_ID),
            NOTIFICATION: notification_message(SLOT_ASSIGNED, "teacher-1", body, WRITTEN_AT),
            EXCESS_NOTIFICATION: notification_message(EXCESS_CONTENT, "teacher-1", refused, WRITTEN_AT),
            PROVISIONING_COMPLETED: event_message(
                PROVISIONING_COMPLETED, COMPLETED, CORRELATION_ID, ASSIGNED_AT, MESSAGE_ID
            ),
            EXCESS_CONTENT: event_message(EXCESS_CONTENT, EXCESS, CORRELATION_ID, ASSIGNED_AT, MESSAGE_ID),
        }


WRITTEN = tuple(messages())


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


def errors(name: str, document: Any) -> list[str]:
    """What the shipped schema has against a document."""
    validator = Draft202012Validator(shipped(name), format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(document)]


@pytest.mark.parametrize("name", FORMATS)
def test_the_shipped_schema_is_what_the_model_says(name: str) -> None:
    Draft202012Validator.check_schema(shipped(name))
    assert shipped(name) == schema_of(name), "run: python -m outbox.huleedu.formats"


@pytest.mark.parametrize("name", FORMATS)
def test_a_golden_file_fits_its_schema(name: str) -> None:
    assert errors(name, golden(name)) == []


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_as_it_always_was(name: str) -> None:
    payload = Encoder(Settings()).row(messages()[name]).payload
    assert payload is not None
    # As text, so that the order of fields and the nulls count too.
    assert json.dumps(json.loads(payload), indent=2) == json.dumps(golden(name), indent=2)


def test_a_record_has_all_headers_of_the_contract() -> None:
    row = Encoder(Settings()).row(messages()[SLOT_ASSIGNED])
    sent = delivery(
        row.destination,
        row.key,
        headers=json.loads(row.headers),
        message_id=MESSAGE_ID,
        type=row.type,
        payload=row.payload,
        created_at=WRITTEN_AT,
    )
    timestamp, key, _, headers = record_of(sent, None)
    found = {"timestamp": timestamp, "key": (key or b"").decode()}
    assert {**found, **{name: value.decode() for name, value in headers}} == golden("kafka_record")


@pytest.mark.parametrize("name", [*READ, SLOT_ASSIGNED])
def test_what_others_write_is_read_and_new_fields_are_ignored(name: str) -> None:
    document = golden(name)
    document["data"]["from_the_future"] = {"nested": [1]}
    document["from_the_future"] = 1
    event = FORMATS[name].model.model_validate_json(json.dumps(document))
    assert event.model_dump(mode="json")["event_id"] == document["event_id"]
    assert errors(name, document) == []


@pytest.mark.parametrize("name", READ)
def test_schema_and_reader_agree_on_what_is_required(name: str) -> None:
    model = FORMATS[name].model
    document = golden(name)
    for place in ([], ["data"]):
        for field in _at(document, place):
            without = deepcopy(document)
            del _at(without, place)[field]
            try:
                model.model_validate_json(json.dumps(without))
            except ValidationError:
                assert errors(name, without), f"{field} is required"
            else:
                assert not errors(name, without), f"{field} is not required"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"essay_ids": ["a", "b", "b"]}, "has one of them twice"),
        ({"expected_essay_count": 2}, "expected_essay_count is 2, and essay_ids has 3"),
        ({"expected_essay_count": 0, "essay_ids": []}, "greater than or equal to 1"),
        ({"user_id": "🎓" * 200}, "more than 255 bytes"),
        ({"entity_id": "x" * 256}, "at most 255 characters"),
        ({"entity_id": "a\0"}, "NUL"),
    ],
)
def test_a_registration_that_contradicts_itself_is_refused(changed: dict[str, Any], reason: str) -> None:
    document = golden(ESSAYS_REGISTERED)
    document["data"].update(changed)
    with pytest.raises(ValidationError, match=reason):
        FORMATS[ESSAYS_REGISTERED].model.model_validate_json(json.dumps(document))


def test_a_time_without_an_offset_is_utc() -> None:
    document = golden(CONTENT_PROVISIONED)
    for given in ("2025-07-24T10:30:00", "2025-07-24T12:30:00+02:00", "2025-07-24T10:30:00Z"):
        document["event_timestamp"] = given
        event = FORMATS[CONTENT_PROVISIONED].model.model_validate_json(json.dumps(document))
        assert event.model_dump(mode="json")["event_timestamp"] == "2025-07-24T10:30:00Z"


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_leaves_no_field_out(name: str) -> None:
    document = golden(name)
    for place in ([], ["data"]):
        for field in _at(document, place):
            without = deepcopy(document)
            del _at(without, place)[field]
            assert errors(name, without)


def _at(document: Any, place: list[str]) -> Any:
    for name in place:
        document = document[name]
    return document
