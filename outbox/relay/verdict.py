"""What becomes of a batch: the sink's results, one by one, turned into what is to be recorded.

Pure: no clock, no I/O. What a single failure means is `retry.decide`'s business; here it is applied to a
batch, in which only the first failure of a key says something.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from outbox.errors import SinkError, Transient, Unavailable
from outbox.message import Delivered, Delivery, Expire, Failure, Keep, Outcome, Park, Result, Retry, Sent
from outbox.policy import Policy, decide


@dataclass(slots=True)
class Verdict:
    """What became of a batch, sorted by what is to be done about it."""

    sent: list[tuple[Delivery, Sent]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    expired: list[Delivery] = field(default_factory=list)
    uncertain: list[Delivery] = field(default_factory=list)
    """Left as they are, but they may have arrived."""
    left: dict[int, int] = field(default_factory=dict)
    """The lowest id left in line, by lane."""
    down: dict[str | None, str] = field(default_factory=dict)
    """What cannot be reached, and why; None is the sink."""

    @property
    def settled(self) -> int:
        """How many deliveries there is something to record of."""
        return len(self.sent) + len(self.failures) + len(self.expired)

    def leave(self, delivery: Delivery) -> None:
        """It stays in line for a later round."""
        if not delivery.deferred:
            self.left[delivery.lane] = min(delivery.id, self.left.get(delivery.lane, delivery.id))

    def released(self) -> Iterator[Delivery]:
        """The deliveries whose keys waited for them and wait no longer."""
        gone = [delivery for delivery, _ in self.sent] + self.expired
        gone += [failure.delivery for failure in self.failures if not failure.blocks]
        return (delivery for delivery in gone if delivery.head)

    def judge(
        self, batch: Sequence[Delivery], results: Sequence[Result], policy: Policy, jitter: Iterator[float]
    ) -> None:
        """Take in what the sink said of a batch, which is in id order within each key."""
        failed_keys: set[int] = set()
        for delivery, result in zip(batch, results, strict=True):
            if isinstance(result, Sent):
                self.sent.append((delivery, result))
                continue
            error = result if isinstance(result, SinkError) else _no_result(result)
            if isinstance(error, Unavailable) and error.scope != "part":
                self.down[None if error.scope == "sink" else delivery.destination] = error.reason
            if delivery.key_hash in failed_keys:
                # It stays behind the first failure of its key, whatever its own was.
                outcome: Outcome = Keep(uncertain=error.uncertain)
            else:
                failed_keys.add(delivery.key_hash)
                outcome = decide(delivery.attempts, error, policy, next(jitter))
            self._note(delivery, outcome, policy)

    def _note(self, delivery: Delivery, outcome: Outcome, policy: Policy) -> None:
        match outcome:
            case Delivered(sent):
                self.sent.append((delivery, sent))
            case Retry(delay, reason, counted, uncertain):
                self.failures.append(
                    Failure(delivery, reason, delay, counted=counted, blocks=True, uncertain=uncertain)
                )
            case Park(reason):
                hold = policy.on_park == "hold"
                self.failures.append(
                    Failure(delivery, reason, None, counted=True, blocks=hold, uncertain=False)
                )
            case Expire():
                self.expired.append(delivery)
            case Keep(uncertain):
                self.leave(delivery)
                if uncertain and not delivery.uncertain:
                    self.uncertain.append(delivery)
            case _:
                assert_never(outcome)


def _no_result(answer: object) -> Transient:
    return Transient(f"the sink gave {answer!r:.100} for a result", uncertain=True)


def highest_in_line(deliveries: Iterable[Delivery]) -> dict[int, int]:
    """The highest id fetched in line, by lane; 0 where ids did not rise.

    The order within a lane comes from its own ORDER BY, but nothing in SQL says that it survives the
    joins above. Where it ever should not, a fetch that was cut tells nothing about what it left out.
    """
    highest: dict[int, int] = {}
    fallen: set[int] = set()
    for delivery in deliveries:
        if delivery.deferred:
            continue
        if delivery.id < highest.get(delivery.lane, 0):
            fallen.add(delivery.lane)
        highest[delivery.lane] = delivery.id
    return {lane: 0 if lane in fallen else top for lane, top in highest.items()}
