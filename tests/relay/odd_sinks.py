"""Sinks that do what no sink should."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Event
from typing import Any, ClassVar

from outbox.message import Delivery, Result, Sent
from outbox.testing import GatedSink
from tests.relay.traffic import SINK
from tests.support.clock import Clock


def odd(environment: Mapping[str, str], sink: type) -> dict[str, str]:
    """The settings of a relay that has this sink."""
    return {**environment, "OUTBOX_SINKS": f"{SINK}={sink.__module__}:{sink.__name__}"}


class Odd(GatedSink):
    """Does the odd thing with deliveries of the key `odd`."""

    async def send(self, deliveries: Sequence[Delivery]) -> Any:
        if any(delivery.key == "odd" for delivery in deliveries):
            return await self.odd(deliveries)
        return await super().send(deliveries)

    async def odd(self, _: Sequence[Delivery]) -> Any:
        raise NotImplementedError


class Silent(Odd):
    async def odd(self, _: Sequence[Delivery]) -> Any:
        return None


class Curt(Odd):
    async def odd(self, deliveries: Sequence[Delivery]) -> list[Result]:
        return [Sent()] * (len(deliveries) - 1)


class Vague(Odd):
    async def odd(self, deliveries: Sequence[Delivery]) -> Any:
        return ["fine"] * len(deliveries)


class Astray(Odd):
    """Says of the odd ones that they are where no receipt can say."""

    place: ClassVar[Any] = None

    async def odd(self, deliveries: Sequence[Delivery]) -> Any:
        return [Astray.place if delivery.key == "odd" else Sent() for delivery in deliveries]


class Fierce(Odd):
    async def odd(self, _: Sequence[Delivery]) -> Any:
        raise ZeroDivisionError("a\0b \udcff\nand a second line")


class Slow(Odd):
    asked: ClassVar[int] = 0

    async def odd(self, _: Sequence[Delivery]) -> Any:
        Slow.asked += 1
        await asyncio.Event().wait()


class Impatient(Odd):
    async def odd(self, _: Sequence[Delivery]) -> Any:
        raise TimeoutError


class Late(Odd):
    """Raises at a time-out of its own, when there is no time left for another send."""

    clock: ClassVar[Clock]
    """Of the leases."""
    asked: ClassVar[int] = 0

    async def odd(self, _: Sequence[Delivery]) -> Any:
        Late.asked += 1
        Late.clock.now += 59.5
        raise TimeoutError("its own")


class Stubborn(GatedSink):
    """Does not start before the third time, and never stops."""

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        self._starts = 0

    async def start(self) -> None:
        self._starts += 1
        if self._starts < 3:
            raise OSError("not today")

    async def stop(self) -> None:
        await asyncio.Event().wait()


class Fickle(Odd):
    async def odd(self, _: Sequence[Delivery]) -> Any:
        raise asyncio.CancelledError


class Endless(GatedSink):
    """Does not end, neither when it is asked to nor when it is cancelled, and keeps a thread busy."""

    async def stop(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, Event().wait)
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
