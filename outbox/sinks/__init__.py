"""What a sink is: the protocol that `kafka`, `redis` and your own implement, and how one is loaded.

A sink knows its broker and nothing of the table. It classifies each failure (see
`outbox.errors`); the pump decides what to do about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

from outbox.distribution import Extra, install
from outbox.errors import SettingsError, Unsent
from outbox.message import Delivery, Result
from outbox.settings import Settings

BEHIND = Unsent("an earlier delivery of its key was not sent")
"""The result of a delivery that follows a failed one of its key."""


class Sink(Protocol):
    """Sends deliveries to one broker.

    A class named in `OUTBOX_SINKS` is called with one argument, a mapping of its own settings:
    what `OUTBOX_<NAME>_<OPTION>` holds under `option`, as strings.
    """

    async def start(self) -> None:
        """Connects. Raises `Unavailable` while the broker cannot be reached.

        It is called again then, and also when nothing could be sent for long, to see whether it can.
        """

    async def send(self, deliveries: Sequence[Delivery]) -> Sequence[Result]:
        """Sends a batch, which is in id order within each key; returns one result per delivery, in its order.

        Nothing of a key may go out after a failure within that key (`key_hash`): such deliveries
        are `Unsent`. Several sends run at once, never with the same key in two of them. A send ends by
        itself within the sink's send timeout, and what it could not confirm by then is uncertain
        and never sent by it afterwards. Where it raises anything but `Unavailable`, the batch is sent
        again in halves, until the delivery at fault stands alone.
        """

    async def stop(self) -> None:
        """Disconnects, within a few seconds whatever the broker does. Safe to call twice."""


def load(name: str, settings: Settings) -> Sink:
    """Makes the sink of that name, not started yet. Raises SettingsError if it cannot be had as it is set."""
    timeout = settings.sink(name).send_timeout_seconds
    match name:
        case "kafka":
            return _built_in("kafka", "KafkaSink")(settings.kafka, timeout=timeout)
        case "redis":
            return _built_in("redis", "RedisSink")(settings.redis, timeout=timeout)
        case _:
            return _own(name, settings)(settings.sink_options(name))


def _built_in(name: Extra, sink: str) -> Callable[..., Sink]:
    try:
        return cast("Callable[..., Sink]", getattr(import_module(f"outbox.sinks.{name}"), sink))
    except ImportError as error:
        raise SettingsError(f"the sink {name} needs: {install(name)} ({error})") from error


def _own(name: str, settings: Settings) -> Callable[..., Sink]:
    path = settings.extra_sinks.get(name)
    if path is None:
        raise SettingsError(
            f"there is no sink {name!r}; OUTBOX_SINKS={name}=module:Class would name its class"
        )
    module, _, attribute = path.partition(":")
    try:
        return cast("Callable[..., Sink]", getattr(import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"OUTBOX_SINKS={name}={path}: {error}") from error
