"""What is asked for: an act, upon which deliveries, how, and by whom; as it is kept in the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from outbox.operate.state import PENDING, Selection

Act = Literal["retry", "skip", "park", "replay"]

_CONCERNED: Mapping[Act, Collection[str]] = {
    "retry": ("parked", "retrying"),
    "skip": PENDING,
    "park": ("scheduled", "ready", "held", "retrying"),
    "replay": ("delivered",),
}


@dataclass(frozen=True, slots=True)
class Who:
    """Who acts, and why, beside the database's role, which the database itself records."""

    os_user: str | None = None
    login: str | None = None
    """On the page."""
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An act that is asked for."""

    act: Act
    selection: Selection
    with_earlier: bool = False
    """Retry: with what is parked before them in their keys; else those keys are left out."""
    error: str | None = None
    """Park: what stands as their last error."""
    since: str | None = None
    """Replay: delivered from then on, RFC 3339."""
    until: str | None = None
    """Replay: delivered before then."""
    to: str | None = None
    """Replay: to this destination; None: to the one where each was."""
    rate: float | None = None
    """Replay: so many a second at the most."""

    @property
    def states(self) -> list[str]:
        """The states that it concerns."""
        chosen = self.selection.states
        return [state for state in _CONCERNED[self.act] if not chosen or state in chosen]

    @property
    def chosen(self) -> Selection:
        """Those of the selection that it concerns."""
        states = self.states
        return replace(self.selection, states=() if len(states) == len(PENDING) else states)

    @property
    def options(self) -> dict[str, Any]:
        """How it is done, as it is kept."""
        names = ("with_earlier", "error", "since", "until", "to", "rate")
        return {name: value for name in names if (value := getattr(self, name))}


def kept(selection: Selection) -> dict[str, Any]:
    """Returns what is kept of a selection, as JSON has it."""
    given = {each.name: getattr(selection, each.name) for each in fields(selection)}
    return {name: _plain(value) for name, value in given.items() if _says_something(value)}


def _says_something(value: Any) -> bool:
    # An empty key is a key, and no group is number 0.
    is_many = isinstance(value, Collection) and not isinstance(value, str)
    return bool(value) if is_many or isinstance(value, bool) else value is not None


def _plain(value: Any) -> Any:
    match value:
        case timedelta():
            return value.total_seconds()
        case str() | int():
            return value
        case _:
            return [str(each) if isinstance(each, UUID) else each for each in value]


def selection_of(values: Mapping[str, Any], age: timedelta) -> Selection:
    """Returns the selection that was kept so long ago; ages in it are those of then."""
    found = dict(values)
    for name in ("older_than", "newer_than"):
        if name in found:
            found[name] = timedelta(seconds=found[name]) + age
    if "message_ids" in found:
        found["message_ids"] = [UUID(each) for each in found["message_ids"]]
    return Selection(**found)
