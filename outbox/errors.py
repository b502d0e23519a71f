"""Every error this package raises on purpose.

    OutboxError
    ├── SettingsError          a setting is missing or wrong: names it and what is allowed
    ├── SchemaError            the database is not migrated, or not as the migrations leave it
    ├── MessageError           a message cannot be written as it is (also a ValueError)
    │   └── ConflictError      its message_id was already written there with other content
    ├── OperatorError          an operator asked for what cannot be done
    ├── DevstackError          a local server cannot be had or does not start
    └── SinkError              a send did not succeed
        ├── Unavailable        the sink, a destination or a part of it is down: no attempt counted
        ├── Transient          this delivery failed now: attempt counted, tried again
        ├── Permanent          this delivery can never be sent as it is: parked at once
        └── Unsent             not tried: an earlier delivery of its key failed

Sinks *return* `SinkError`s, one per delivery, so that one batch can have many results.
"""

from __future__ import annotations

from typing import Literal, get_args

Scope = Literal["sink", "destination", "part"]
"""How much is down: the sink, one destination of it, or a part of a destination (one partition)."""

_LONGEST = 200

HIDDEN_ROWS = "row-level security policy"
"""What PostgreSQL says where `row_security` is off and a policy would hide rows."""

SEE_ALL_ROWS = "own the tables, or be a role with BYPASSRLS"
"""What to do then."""


class OutboxError(Exception):
    """The root of what this package raises on purpose."""


class SettingsError(OutboxError):
    """A setting is missing or wrong."""


class SchemaError(OutboxError):
    """The database is not migrated, or differs from what the migrations make."""


class MessageError(OutboxError, ValueError):
    """A message cannot be written as it is; nothing was written."""


class ConflictError(MessageError):
    """A message_id was already written to this sink and destination with other content."""


class OperatorError(OutboxError):
    """An operator asked for what cannot be done."""


class DevstackError(OutboxError):
    """A local server cannot be had or does not start; the message says why and how to go on."""


class SinkError(OutboxError):
    """A send did not succeed.

    `reason` is one line for people, without payload or secret. `uncertain` says that the delivery
    may have arrived all the same (a time-out after the bytes left, say).
    """

    def __init__(self, reason: str, *, uncertain: bool = False) -> None:
        # What the database takes: a sink's own words may be anything.
        reason = reason.encode(errors="replace").decode().replace("\0", "?")
        super().__init__(reason)
        self.reason = reason
        self.uncertain = uncertain


class Unavailable(SinkError):
    """What the delivery goes to is down; the delivery itself is not at fault.

    `scope` says how much is down, and so who stops: `"sink"` and `"destination"` open a breaker,
    `"part"` (one partition of a destination) makes only this delivery's key wait. `part` is the name
    of that part within its destination, so that failures of one part are known to be that.
    """

    def __init__(
        self, reason: str, *, scope: Scope = "sink", part: str | None = None, uncertain: bool = False
    ) -> None:
        super().__init__(reason, uncertain=uncertain)
        if scope not in get_args(Scope):
            raise ValueError(f"scope={scope!r} is none of {', '.join(get_args(Scope))}")
        self.scope: Scope = scope
        self.part = part


class Transient(SinkError):
    """This delivery failed now and may succeed later; the attempt counts."""


class Permanent(SinkError):
    """This delivery can never be sent as it is."""


class Unsent(SinkError):
    """Not tried, because an earlier delivery of its key was not sent. Nothing is recorded."""


def describe(error: BaseException) -> str:
    """Returns what an error says, in one line of bounded length that names it."""
    if isinstance(error, SinkError):
        return error.reason
    error = unwrapped(error)
    name, text = type(error).__name__, str(error).partition("\n")[0][:_LONGEST]
    if HIDDEN_ROWS in text:
        text += f"; {SEE_ALL_ROWS}"
    return text if name in text else f"{name}: {text}".removesuffix(": ")


def unwrapped(error: BaseException) -> BaseException:
    """Returns the database driver's own error where SQLAlchemy wraps one, else the error itself."""
    wrapped = getattr(error, "orig", None)
    return wrapped.__cause__ or wrapped if isinstance(wrapped, BaseException) else error
