"""A message as the row it becomes, or a `MessageError` that says what is wrong with it and what to do.

Nothing here asks the database: what is refused was never sent to it, so the caller's transaction goes on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ConfigDict, TypeAdapter
from pydantic_core import from_json, to_json
from uuid_utils.compat import uuid7

from outbox.errors import MessageError
from outbox.message import Message
from outbox.schema import (
    DESTINATION_BYTES,
    FIRST_TIME,
    HEADERS,
    HEADERS_BYTES,
    KEY_BYTES,
    LAST_TIME,
    TYPE_BYTES,
)
from outbox.settings import Settings
from outbox.tracing import current_trace

RESERVED_HEADERS = frozenset(
    {"message_id", "event_id", "event_type", "replay_id", "replayed_at", "content-type"}
)
"""What the sinks themselves say under these names; so are all that begin with `ce_`."""

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_FIRST, _LAST = map(datetime.fromisoformat, (FIRST_TIME, LAST_TIME))
_SHOWN = 80
# One way for whatever stands anywhere, models by their own settings; NaN and Infinity as Python has them.
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants"))


class Row(NamedTuple):
    """The columns of `outbox` that a writer fills."""

    message_id: str
    type: str
    sink: str
    destination: str
    key: str | None
    payload: bytes | None
    headers: str
    """A JSON object."""
    available_at: datetime | None
    expires_at: datetime | None


def new_id() -> UUID:
    """Makes a new message id, a UUIDv7; messages that say the same to different destinations share one."""
    return uuid7()


class Encoder:
    """Makes rows under one set of settings: which sinks there are, and how large a message each takes."""

    def __init__(self, settings: Settings) -> None:
        self.schema = settings.database_schema
        self._longest = {sink: settings.sink(sink).max_bytes for sink in settings.known_sinks}
        self._record_batch = settings.kafka.max_batch_bytes
        self._client = len(settings.kafka.client_id.encode())

    def rows(self, messages: Sequence[Message]) -> list[Row]:
        """Makes the rows of all messages. Raises `MessageError` that says which one is wrong."""
        rows = []
        for number, message in enumerate(messages, 1):
            try:
                rows.append(self.row(message))
            except MessageError as error:
                if len(messages) == 1:
                    raise
                raise MessageError(f"message {number} of {len(messages)}: {error}") from error.__cause__
        return rows

    def row(self, message: Message) -> Row:
        """Makes the row of one message. Raises `MessageError` that says what is wrong with it."""
        sink, type_, destination, key = self._address(message)
        payload, content_type = _encode(message.payload)
        headers, headers_bytes = _headers(message.headers, content_type)
        if payload is None and sink == "redis":
            raise MessageError("payload: None is a tombstone for Kafka, and says nothing in Redis; give one")
        size = len(payload or b"") + _bytes(key or "") + headers_bytes
        self._check_size(sink, type_, size, headers)
        _check_times(message)
        return Row(
            _message_id(message.message_id),
            type_,
            sink,
            destination,
            key,
            payload,
            to_json(headers).decode(),
            message.available_at,
            message.expires_at,
        )

    def _check_size(self, sink: str, type_: str, size: int, headers: Mapping[str, str]) -> None:
        if size > self._longest[sink]:
            raise _too_large(size, sink, self._longest[sink], f"OUTBOX_{sink.upper()}_MAX_BYTES")
        if sink == "kafka":
            # At the most: what the record batch needs, each header, and what the sink says in its own.
            added = 1_000 + self._client + 6 * len(headers) + 2 * _bytes(type_)
            added += _bytes(headers.get("source_service", "")) + _bytes(headers.get("content_type", ""))
            if size + added > self._record_batch:
                raise _too_large(size + added, sink, self._record_batch, "OUTBOX_KAFKA_MAX_BATCH_BYTES")

    def _address(self, message: Message) -> tuple[str, str, str, str | None]:
        """Returns sink, type, destination and key."""
        if message.sink not in self._longest:
            near = difflib.get_close_matches(str(message.sink), self._longest, n=1)
            guess = f" (did you mean {near[0]!r}?)" if near else ""
            raise MessageError(
                f"sink {_shown(message.sink)} is not known{guess}; "
                f"use {', '.join(self._longest)}, or name one of your own in OUTBOX_SINKS"
            )
        type_ = _text("type", message.type, TYPE_BYTES)
        destination = _text("destination", message.destination, DESTINATION_BYTES)
        if message.sink == "kafka" and (not _TOPIC.fullmatch(destination) or destination in (".", "..")):
            raise MessageError(
                f"destination {_shown(destination)} is no name for a Kafka topic; "
                "use letters, digits, dots, _ and -, at most 249"
            )
        key = None if message.key is None else _text("key", message.key, KEY_BYTES, empty=True)
        return str.__str__(message.sink), type_, destination, key


def _too_large(size: int, sink: str, longest: int, setting: str) -> MessageError:
    return MessageError(
        f"payload: {size:,} bytes with all that goes with it, and {sink} takes {longest:,}; "
        f"keep the content elsewhere and send where it is, or raise {setting}"
    )


def _encode(payload: Any) -> tuple[bytes | None, str | None]:
    """Returns the bytes to send, and their content type where the encoding is ours."""
    match payload:
        case None:
            return None, None
        case bytes() | bytearray() | memoryview():
            return bytes(payload), None
        case str():
            return _utf8(payload), None
        case _:
            return _json(payload), "application/json"


def _utf8(payload: str) -> bytes:
    try:
        return payload.encode()
    except UnicodeEncodeError:
        raise MessageError(f"payload {_LONE}") from None


def _json(payload: Any) -> bytes:
    try:
        encoded = _ANYTHING.dump_json(payload)
        if b"NaN" in encoded or b"Infinity" in encoded:
            # Perhaps only within a string.
            from_json(encoded, allow_inf_nan=False)
        if b"null" in encoded:
            _refuse_lost(_ANYTHING.dump_python(payload), from_json(encoded))
    except (ValueError, TypeError, RecursionError) as error:
        raise MessageError(
            f"payload: this {type(payload).__name__} has no form in JSON ({str(error)[:_SHOWN]}); "
            "give bytes, a str, a pydantic model, or what JSON can hold (no NaN, no Infinity)"
        ) from error
    return encoded


def _refuse_lost(value: Any, told: Any) -> None:
    """Raises ValueError if somewhere in what was encoded null stands for a number."""
    match value, told:
        case dict(), dict():
            _refuse_lost(list(value.values()), list(told.values()))
        case ((list() | tuple() | set() | frozenset()), list()):
            for pair in zip(value, told, strict=False):
                _refuse_lost(*pair)
        case Enum(), None:
            _refuse_lost(value.value, None)
        case float(), None:
            raise ValueError(f"its model makes null of {value}")


def _headers(given: Mapping[str, str], content_type: str | None) -> tuple[dict[str, str], int]:
    """Returns the headers given, with the content type and the current trace where they lack them.

    And how many bytes they have.
    """
    headers = dict(_header(name, value) for name, value in given.items())
    if content_type is not None:
        headers.setdefault("content_type", content_type)
    if "traceparent" not in headers:
        headers.update(current_trace())
    size = _bytes("".join([*headers, *headers.values()]))
    if len(headers) > HEADERS or size > HEADERS_BYTES:
        raise MessageError(
            f"headers: {len(headers)} with {size:,} bytes, and at most {HEADERS} with "
            f"{HEADERS_BYTES:,} bytes are allowed; move what is large into the payload"
        )
    return headers, size


@lru_cache(1_000)
def _header_name(given: str) -> str:
    name = _text("a header's name", given, HEADERS_BYTES)
    if name in RESERVED_HEADERS or name.startswith("ce_"):
        raise MessageError(
            f"header {name!r} is made by the sink; leave it out (content_type and occurred_at can be given)"
        )
    return name


def _header(name: str, value: str) -> tuple[str, str]:
    name = _header_name(name)
    if problem := _problem(value, HEADERS_BYTES, empty=True):
        raise MessageError(f"header {name!r} {problem}")
    if name == "occurred_at" and not _is_moment(value):
        raise MessageError(
            f"header 'occurred_at' {_shown(value)} is no RFC 3339 time with an offset, "
            "such as 2025-07-24T10:30:00Z"
        )
    return name, str.__str__(value)


def _check_times(message: Message) -> None:
    for field in ("available_at", "expires_at"):
        value = getattr(message, field)
        if value is not None and (not isinstance(value, datetime) or value.utcoffset() is None):
            raise MessageError(
                f"{field} {_shown(value)} is no datetime with a time zone; use datetime.now(UTC) + …"
            )
        if value is not None and not _is_told(value):
            raise MessageError(
                f"{field} {_shown(value)} is out of range; "
                "leave it out for at once or never, or give a time from year 1 to 9999"
            )
    if message.available_at and message.expires_at and message.expires_at <= message.available_at:
        raise MessageError(
            f"expires_at {message.expires_at.isoformat()} is not after available_at "
            f"{message.available_at.isoformat()}, so it would never be sent; make it later"
        )


def _message_id(given: UUID | None) -> str:
    if given is None:
        return str(new_id())
    if not isinstance(given, UUID):
        raise MessageError(f"message_id {_shown(given)} is no uuid.UUID; use outbox.new_id() or UUID(…)")
    return str(given)


def _text(field: str, value: object, longest: int, *, empty: bool = False) -> str:
    """Returns a text as a plain str, whatever it is to Python: a member of a StrEnum, say."""
    if problem := _problem(value, longest, empty=empty):
        raise MessageError(f"{field} {_shown(value)} {problem}")
    return str.__str__(value)


def _problem(value: object, longest: int, *, empty: bool) -> str | None:
    """Returns what is wrong with a text; None if nothing is."""
    # So is nearly every text, and a message has a dozen.
    if type(value) is str and value.isascii() and "\0" not in value and (not empty) <= len(value) <= longest:
        return None
    return _what_is_wrong(value, longest, empty=empty)


def _what_is_wrong(value: object, longest: int, *, empty: bool) -> str | None:
    if not isinstance(value, str):
        return f"is of type {type(value).__name__}; give a str"
    if not value and not empty:
        return "is empty; give one"
    if "\0" in value:
        return "has a NUL character, which PostgreSQL cannot store; take it out"
    try:
        size = _bytes(value)
    except UnicodeEncodeError:
        return _LONE
    if size > longest:
        return f"has {size:,} bytes, and at most {longest:,} are allowed; shorten it"
    return None


_LONE = "has a lone surrogate, which UTF-8 cannot hold; take it out"


def _bytes(text: str) -> int:
    """Returns how many bytes a text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _is_moment(text: str) -> bool:
    try:
        return _is_told(datetime.fromisoformat(text))
    except ValueError:
        return False


def _is_told(time: datetime) -> bool:
    """True if a time has an offset, and every reader of it can tell it in an offset of its own."""
    return time.utcoffset() is not None and _FIRST <= time <= _LAST


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
