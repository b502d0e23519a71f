"""From deliveries to Kafka's records and record batches: the same bytes on every try, but for their time.

A record's headers, all UTF-8: `message_id`, `event_id` (the same value), `event_type`, those of the
row as they are, `occurred_at`, and on a replay `replayed_at` and `replay_id`. CloudEvents' binary mode
adds its own: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from pydantic_core import from_json

from outbox.message import Delivery
from outbox.sinks.kafka.murmur2 import hashed

CODECS = {
    "none": DefaultRecordBatch.CODEC_NONE,
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "snappy": DefaultRecordBatch.CODEC_SNAPPY,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}

Header = tuple[str, bytes]
Record = tuple[int, bytes | None, bytes | None, list[Header]]
"""Timestamp in milliseconds, key, value, headers."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OURS = frozenset({"message_id", "event_id", "event_type", "occurred_at", "replayed_at", "replay_id"})
"""What the sink says itself; the same of a row written by SQL is left out, or consumers could read either."""
_OURS_IN_CLOUDEVENTS = frozenset(
    {"ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type"}
)


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """How records are written."""

    codec: int = CODECS["none"]
    max_batch_bytes: int = 1_048_588
    cloudevents_source: str | None = None
    """Adds CloudEvents headers; it is their `ce_source` where the row has no `source_service`."""
    occurred: bool = False
    """A record's time is when its event occurred, rather than that of the send."""


class RecordBatch:
    """Some deliveries, by their indexes in the send, as one record batch."""

    def __init__(self, codec: int, limit: int, sent_at: int | None = None) -> None:
        self.sent_at = sent_at
        """The time that its records have, in milliseconds; None where each has its own."""
        self.rows: list[int] = []
        self.under_way = False
        """It was handed to a connection and is not answered yet."""
        self.uncertain = False
        """An answer left open whether it is in the log."""
        self.again = False
        """It was sent whole a second time because an answer told nothing; what it is halved into was too."""
        self._data: bytes | bytearray = b""
        self._builder: DefaultRecordBatchBuilder | None = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=codec,
            is_transactional=0,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=0,
            batch_size=limit,
        )

    def append(self, row: int, record: Record) -> bool:
        """Adds a delivery; False if there is no room for it. The first one always has room."""
        if self._builder is None or self._builder.append(len(self.rows), *record) is None:
            return False
        self.rows.append(row)
        return True

    @property
    def size(self) -> int:
        """How many bytes it has so far, not compressed."""
        return 0 if self._builder is None else self._builder.size()

    @property
    def data(self) -> bytes | bytearray:
        """The record batch as it is sent, compressed; nothing can be added once this was read."""
        if self._builder is not None:
            self._data, self._builder = self._builder.build(), None
        return self._data


def record_of(delivery: Delivery, cloudevents_source: str | None, sent_at: int | None = None) -> Record:
    """Makes the record of a delivery. Raises ValueError if the row's headers are not all strings.

    Its time is `sent_at`, in milliseconds, or when its event occurred.
    """
    timestamp, written_at = moment(delivery.created_at)
    occurred_at = written_at
    message_id = str(delivery.message_id).encode()
    headers = [
        ("message_id", message_id),
        ("event_id", message_id),
        ("event_type", delivery.type.encode()),
    ]
    if delivery.headers != "{}":
        own = from_json(delivery.headers)
        ours = _OURS if cloudevents_source is None else _OURS | _OURS_IN_CLOUDEVENTS
        try:
            headers += [(name, value.encode()) for name, value in own.items() if name not in ours]
        except AttributeError:
            raise ValueError("the row's headers are not all strings") from None
        if "occurred_at" in own:
            occurred_at = str(own["occurred_at"])
            timestamp = timestamp if sent_at is not None else _parsed(occurred_at, timestamp)
    headers.append(("occurred_at", occurred_at.encode()))
    if delivery.replay_id is not None:
        headers.append(("replayed_at", written_at.encode()))
        headers.append(("replay_id", str(delivery.replay_id).encode()))
    if cloudevents_source is not None:
        headers += _cloudevents(dict(headers), cloudevents_source)
    key = None if delivery.key is None else hashed(delivery.key)[0]
    return max(0, timestamp if sent_at is None else sent_at), key, delivery.payload, headers


def moment(time: datetime) -> tuple[int, str]:
    """Returns a time as milliseconds since 1970, and by RFC 3339 in UTC with `Z`."""
    since = time - _EPOCH
    fraction = f".{since.microseconds:06}" if since.microseconds else ""
    milliseconds = (since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000
    return milliseconds, f"{_whole_second(since.days, since.seconds)}{fraction}Z"


@lru_cache(maxsize=64)
def _whole_second(days: int, seconds: int) -> str:
    return (_EPOCH + timedelta(days, seconds)).isoformat().removesuffix("+00:00")


def _parsed(text: str, otherwise: int) -> int:
    """Returns a time as milliseconds, or `otherwise` if the text is no date and time with an offset."""
    try:
        time = datetime.fromisoformat(text)
        return moment(time)[0] if time.tzinfo else otherwise
    except (ValueError, OverflowError):
        return otherwise


def _cloudevents(headers: dict[str, bytes], source: str) -> list[Header]:
    found = [
        ("ce_specversion", b"1.0"),
        ("ce_id", headers["message_id"]),
        ("ce_type", headers["event_type"]),
        ("ce_source", headers.get("source_service") or source.encode()),
        ("ce_time", headers["occurred_at"]),
    ]
    if "content_type" in headers:
        found.append(("content-type", headers["content_type"]))
    return found
