"""Whether the input is at fault: what no retry would heal, by kind and with a reason for a person."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import asyncpg
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from outbox import MessageError
from outbox.errors import unwrapped
from outbox.huleedu.errors import Unacceptable

Kind = Literal["unreadable", "refused", "unsendable", "unstorable"]
"""Not in its form; against what is known; too much for a message; too much for PostgreSQL."""

KINDS: tuple[Kind, ...] = get_args(Kind)

_REFUSED_DATA = ("22", "23", "54")
"""PostgreSQL's classes of errors for data that it cannot hold."""
_TAKE_TURNS = ("40001", "40P01")


class Refusal(NamedTuple):
    """Why input can never be applied."""

    kind: Kind
    reason: str
    """Never the input itself, which may hold anything."""


def refusal(error: Exception) -> Refusal | None:
    """Returns why the input that led to this error can never be applied; None where a retry might heal it."""
    match error:
        case ValidationError():
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            return Refusal(
                "unreadable", "; ".join(_problem(each["loc"], each["msg"]) for each in problems[:5])
            )
        case Unacceptable():
            return Refusal("refused", str(error))
        case MessageError():
            return Refusal("unsendable", str(error))
        case DBAPIError() if _is_about_data(error):
            # Its message may quote what was refused.
            return Refusal("unstorable", f"the database refuses it: {type(unwrapped(error)).__name__}")
        case _:
            return None


def take_turns(error: Exception) -> bool:
    """Returns True if PostgreSQL ended a transaction because of another one: it is tried again at once."""
    return isinstance(error, DBAPIError) and _state(error) in _TAKE_TURNS


def _is_about_data(error: DBAPIError) -> bool:
    # DataError too, for what asyncpg itself cannot encode.
    return _state(error).startswith(_REFUSED_DATA) or isinstance(unwrapped(error), asyncpg.DataError)


def _state(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _problem(place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(map(str, place))
    message = message.removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
