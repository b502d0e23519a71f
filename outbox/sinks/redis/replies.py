"""What Redis' replies to a transaction mean for the deliveries in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from outbox.errors import Permanent, SinkError, Transient, Unavailable, describe
from outbox.message import Delivery, Result, Sent
from outbox.redis_server import unfit
from outbox.sinks import BEHIND

Command = tuple[int, bytes]
"""A row's index and a command for it, packed; a row's last command publishes it."""

_TOMBSTONE = Permanent("a tombstone: nothing can be published without a payload")

_SERVER_DOWN = (
    AskError,
    ClusterCrossSlotError,
    ClusterError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
_SERVER_DOWN_CODES = ("BUSY", "MISCONF", "NOREPLICAS", "unknown command")  # redis-py has no class for these


def without_payload(deliveries: Sequence[Delivery]) -> dict[int, Result]:
    """Returns the results of deliveries without a payload, and of those behind them in their keys."""
    if all(delivery.payload is not None for delivery in deliveries):
        return {}
    results: dict[int, Result] = {}
    failed: set[int] = set()
    for row, delivery in enumerate(deliveries):
        if delivery.key_hash in failed:
            results[row] = BEHIND
        elif delivery.payload is None:
            results[row] = _TOMBSTONE
            failed.add(delivery.key_hash)
    return results


def results_of(
    commands: Sequence[Command], replies: Sequence[Any], deliveries: Sequence[Delivery]
) -> dict[int, Result]:
    """Returns what became of the rows; those without a result can be sent again without the others."""
    rows = {row for row, _ in commands}
    begun, *queued, executed = replies
    if isinstance(begun, ResponseError):
        # What came after it was no transaction, and may have been done.
        return dict.fromkeys(rows, Unavailable(describe_reply(begun), uncertain=True))
    if not isinstance(executed, ResponseError):
        return _each(commands, executed)
    # Nothing was done: leave out the destinations that were refused, if it was only those.
    refused: dict[int, ResponseError] = {}
    for (row, _), reply in zip(commands, queued, strict=True):
        if isinstance(reply, ResponseError):
            refused.setdefault(row, reply)
    for error in refused.values() or (executed,):
        if not _is_about_a_destination(error):
            return dict.fromkeys(rows, _failure(error))
    destinations = {deliveries[row].destination: error for row, error in refused.items()}
    return {
        row: Unavailable(describe_reply(destinations[destination]), scope="destination")
        for row in rows
        if (destination := deliveries[row].destination) in destinations
    }


def by_the_right_server(hello: Any, results: dict[int, Result]) -> dict[int, Result]:
    """Returns the results if the server that answered HELLO so is fit; else nothing counts as sent."""
    reason = unfit(hello)
    if reason is None:
        return results
    unknown = Unavailable(reason, uncertain=True)
    return {row: unknown if isinstance(result, Sent) else result for row, result in results.items()}


def _each(commands: Sequence[Command], replies: Sequence[Any]) -> dict[int, Result]:
    """Returns what became of each row once the transaction was carried out."""
    results: dict[int, Result] = {}
    errors: dict[int, Result] = {}
    for (row, _), reply in zip(commands, replies, strict=True):
        if not isinstance(reply, ResponseError):
            results[row] = Sent(receivers=reply)
        elif str(reply).startswith("WRONGTYPE"):
            # Something else has the name of the channel's log. It was published all the same.
            errors[row] = Unavailable(describe_reply(reply), scope="destination", uncertain=True)
        else:
            errors[row] = Transient(describe_reply(reply), uncertain=True)
    return results | errors


def _is_about_a_destination(error: ResponseError) -> bool:
    return isinstance(error, NoPermissionError) and "permissions to access" in str(error)


def _failure(error: ResponseError) -> SinkError:
    down = isinstance(error, _SERVER_DOWN) or str(error).startswith(_SERVER_DOWN_CODES)
    return Unavailable(describe_reply(error)) if down else Transient(describe_reply(error))


def describe_reply(error: ResponseError) -> str:
    """Returns what the server says, without what it repeats of the command."""
    text = str(error) if type(error) is ResponseError else describe(error)
    return text.partition(", with args")[0]
