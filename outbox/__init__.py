"""A transactional outbox: what a service says commits with what it does, and reaches Kafka and Redis."""

from outbox.encode import new_id
from outbox.engine import create_engine
from outbox.errors import (
    ConflictError,
    MessageError,
    OperatorError,
    OutboxError,
    SchemaError,
    SettingsError,
)
from outbox.inbox import once, prune_inbox, unseen
from outbox.message import Message
from outbox.schema import include_name
from outbox.settings import Settings
from outbox.waker import Waker
from outbox.write import write, write_sync

__all__ = [
    "ConflictError",
    "Message",
    "MessageError",
    "OperatorError",
    "OutboxError",
    "SchemaError",
    "Settings",
    "SettingsError",
    "Waker",
    "create_engine",
    "include_name",
    "new_id",
    "once",
    "prune_inbox",
    "unseen",
    "write",
    "write_sync",
]
