"""A relay's part in what operators asked for: it carries operations out, beside its pumps.

The heartbeat looks whether there is any, which costs it a look at an index. Only then is there a connection
for it. Several relays share the work, a batch each.
"""

from __future__ import annotations

import asyncio

import asyncpg

from outbox.errors import describe
from outbox.observe import emit
from outbox.operate.audit import acts, load_hook, tell
from outbox.operate.carry_out import Step, Work
from outbox.operate.connection import connect
from outbox.relay.waiting import wait_for
from outbox.schema import in_schema
from outbox.settings import Settings

LOOK = "SELECT EXISTS (SELECT FROM {schema}outbox_operations WHERE ended_at IS NULL)"
"""Whether there is anything to carry out."""

_LONGEST_WAIT_SECONDS = 1.0
_LONGEST_STEP_SECONDS = 120.0


class Operations:
    """The operations that one relay is at."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hook = load_hook(settings.act_hook)
        self._wanted = asyncio.Event()

    async def look(self, connection: asyncpg.Connection) -> None:
        """Looks whether there is anything to carry out."""
        try:
            if await connection.fetchval(in_schema(LOOK, self._settings.database_schema)):
                self._wanted.set()
        except asyncpg.InsufficientPrivilegeError as error:
            emit("operation.failed", operation=None, reason=describe(error))

    async def run(self, ending: asyncio.Event) -> None:
        """Carries out what there is, again and again until `ending`."""
        ended = asyncio.create_task(ending.wait())
        ended.add_done_callback(lambda _: self._wanted.set())
        try:
            while not ending.is_set():
                await self._wanted.wait()
                self._wanted.clear()
                if not ending.is_set():
                    async with connect(self._settings) as connection:
                        await self._carry_out(Work(connection), ending)
        finally:
            ended.cancel()

    async def _carry_out(self, work: Work, ending: asyncio.Event) -> None:
        while not ending.is_set():
            async with asyncio.timeout(_LONGEST_STEP_SECONDS):
                step = await work.step()
            if step is None:
                return
            if step.wait:
                await wait_for(ending, min(step.wait, _LONGEST_WAIT_SECONDS))
            else:
                await self._tell(work, step)

    async def _tell(self, work: Work, step: Step) -> None:
        about = {"operation": step.operation, "act": step.act}
        emit("operation.batch", **about, rows=step.done.rows)
        if not step.ended:
            return
        async with work.connection.begin():
            ended, *_ = await acts(work.connection, 1, operation=step.operation)
        emit("operation.ended", **about, **(ended.after or {}))
        if failure := await tell(self._hook, ended):
            emit("act.hook_failed", operation=step.operation, reason=failure)
