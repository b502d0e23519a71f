"""The Redis channel of each user, and the capped stream that the outbox keeps beside it."""

from __future__ import annotations

_PREFIX = "ws:"

PREFIX_BYTES = len(_PREFIX.encode())
"""By so much the name of a channel is longer than the user's id."""


def channel_of(user_id: str) -> str:
    """Returns the channel on which a user's notifications are published."""
    return f"{_PREFIX}{user_id}"


def user_of(channel: str) -> str:
    """Returns the id of the user whose channel it is."""
    return channel.removeprefix(_PREFIX)


def stream_of(channel: str) -> str:
    """Returns the capped stream that holds what was last published on a channel."""
    return f"{channel}:log"
