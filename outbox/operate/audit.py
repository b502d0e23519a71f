"""Who did what, when and why: the record of acts, which nobody changes, and the hook that hears of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from threading import Thread
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.errors import SettingsError, describe
from outbox.operate.act_statements import RECORD_ACT
from outbox.operate.integrity import run
from outbox.operate.wishes import Who
from outbox.schema import table

_HOOK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line of the record. An operation has two: when it was asked, and what came of it."""

    id: int
    at: datetime
    act: str
    phase: str
    """`asked`, `done` or `cancelled`."""
    operation: int | None
    """None: it was done at once."""
    role: str
    """Of the database, as which it logged in; of an operation's end, that of the relay."""
    os_user: str | None
    login: str | None
    reason: str | None
    selection: Mapping[str, Any] | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


Hook = Callable[[Recorded], object]


async def record(connection: AsyncConnection, act: str, who: Who, **told: Mapping[str, Any] | None) -> int:
    """Records an act in the connection's transaction, as its session's role; returns its id.

    There may be the `selection` that it was about, how that was `before`, and `after`.
    """
    given = (told.get(name) for name in ("selection", "before", "after"))
    told_as = (None if each is None else json.dumps(each) for each in given)
    recorded = await run(connection, RECORD_ACT, act, *told_as, who.os_user, who.login, who.reason)
    id_: int = recorded.scalar_one()
    return id_


async def acts(
    connection: AsyncConnection, limit: int, *, before: int | None = None, operation: int | None = None
) -> Sequence[Recorded]:
    """Returns what was done, the newest first; from a certain one on, or of one operation."""
    recorded = table("outbox_acts")
    statement = select(*(recorded.c[name] for name in Recorded.__dataclass_fields__))
    if before is not None:
        statement = statement.where(recorded.c.id < before)
    if operation is not None:
        statement = statement.where(recorded.c.operation == operation)
    found = await connection.execute(statement.order_by(recorded.c.id.desc()).limit(limit))
    return [Recorded(*row) for row in found]


async def recorded(connection: AsyncConnection, id_: int) -> Recorded:
    """Returns one act."""
    (found,) = await acts(connection, 1, before=id_ + 1)
    return found


def load_hook(path: str) -> Hook | None:
    """Returns the function that hears of acts; raises `SettingsError` where it is not to be had."""
    if not path:
        return None
    module, _, name = path.partition(":")
    try:
        found: Hook = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"OUTBOX_ACT_HOOK={path}: {error}") from error
    return found


async def tell(hook: Hook | None, recorded: Recorded) -> str | None:
    """Tells the hook, in a thread of its own, and waits ten seconds at the most; returns what failed."""
    if hook is None:
        return None
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    failures: list[str] = []

    def call() -> None:
        try:
            hook(recorded)
        except Exception as error:  # noqa: BLE001 - it is anybody's
            failures.append(describe(error))
        loop.call_soon_threadsafe(told.set)

    # A daemon, so that one that hangs keeps no process from its end.
    Thread(target=call, name="outbox act hook", daemon=True).start()
    try:
        async with asyncio.timeout(_HOOK_SECONDS):
            await told.wait()
    except TimeoutError:
        return f"no end within {_HOOK_SECONDS:g} s"
    return failures[0] if failures else None
