"""What of a fetched batch is sent: sorted out before anything is. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

from outbox.message import Delivery

_BY_ID = attrgetter("id")


class Outgoing(NamedTuple):
    """A fetched batch, sorted out before anything is sent. Each part is in id order."""

    send: list[Delivery]
    expired: list[Delivery]
    """Too late to be worth sending."""
    left: list[Delivery]
    """Left for a later round: too many, to what is only probed now, or behind a flaw of their key."""
    flawed: list[tuple[Delivery, str]]
    """With the reason: its flaw was found before anything of it was read."""


def sort_out(
    fetched: Iterable[Delivery],
    *,
    most: int | None = None,
    probes: Collection[str] = (),
    flaws: Mapping[int, str] | None = None,
) -> Outgoing:
    """Returns what to send of a batch, in whatever order its lanes and the retries among them came.

    The first `most` of them only, and the first one to each destination in `probes`. What may have arrived is
    sent though it is too late: its key must not go on before that is known. `flaws` are by the id of their
    delivery.
    """
    batch = sorted(fetched, key=_BY_ID)
    outgoing = Outgoing([], [], [], [])
    if flaws:
        batch = _without_flaws(batch, flaws, outgoing)
    if any(delivery.expired for delivery in batch):
        outgoing.expired.extend(d for d in batch if d.expired and not d.uncertain)
        batch = [d for d in batch if not d.expired or d.uncertain]
    if probes:
        batch = _one_each(batch, probes, outgoing)
    if most is not None:
        outgoing.left.extend(batch[most:])
        batch = batch[:most]
    return outgoing._replace(send=batch)


def _without_flaws(batch: list[Delivery], flaws: Mapping[int, str], outgoing: Outgoing) -> list[Delivery]:
    flawed_keys: set[int] = set()
    rest: list[Delivery] = []
    for delivery in batch:
        if delivery.id in flaws:
            outgoing.flawed.append((delivery, flaws[delivery.id]))
            flawed_keys.add(delivery.key_hash)
        elif delivery.key_hash in flawed_keys:
            outgoing.left.append(delivery)
        else:
            rest.append(delivery)
    return rest


def _one_each(batch: list[Delivery], probes: Collection[str], outgoing: Outgoing) -> list[Delivery]:
    """Returns what is left where each destination that is probed gets its first delivery only."""
    probed: set[str] = set()
    rest: list[Delivery] = []
    for delivery in batch:
        (outgoing.left if delivery.destination in probed else rest).append(delivery)
        if delivery.destination in probes:
            probed.add(delivery.destination)
    return rest
