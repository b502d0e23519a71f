from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from outbox.errors import Transient, Unavailable, describe


def wrapping(cause: Exception) -> Exception:
    """As SQLAlchemy's dialect for asyncpg wraps it."""
    wrapped = Exception("wrapped")
    wrapped.__cause__ = cause
    return wrapped


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (ValueError(), "ValueError"),
        (ValueError("a ValueError it is"), "a ValueError it is"),
        (ConnectionRefusedError(111, "refused"), "ConnectionRefusedError: [Errno 111] refused"),
        (Transient("the broker's own words"), "the broker's own words"),
        (
            DBAPIError("SELECT", {}, wrapping(ConnectionRefusedError(111, "refused"))),
            "ConnectionRefusedError: [Errno 111] refused",
        ),
        (DBAPIError("SELECT", {}, ValueError("by the driver")), "ValueError: by the driver"),
        (ValueError("x" * 1_000), "ValueError: " + "x" * 200),
    ],
)
def test_an_error_is_described_in_one_line(error: Exception, text: str) -> None:
    assert describe(error) == text


def test_a_scope_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="scope='partition' is none of sink, destination, part"):
        Unavailable("down", scope="partition")  # type: ignore[arg-type]  # as who has no checker does
