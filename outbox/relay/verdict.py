"""All policy about failure: what to send of a batch, and what becomes of it by the sink's results.

Pure: no clock, no randomness and no I/O of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, assert_never

from outbox.errors import Permanent, Scope, SinkError, Unavailable, Unsent
from outbox.message import Delivery, Result, Sent
from outbox.policy import Policy
from outbox.relay.outgoing import Outgoing


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay` seconds; until then the key waits."""

    delay: float
    reason: str
    counted: bool = True
    """Whether the attempt counts towards parking."""
    uncertain: bool = False
    """Whether it may have arrived all the same."""


@dataclass(frozen=True, slots=True)
class Park:
    """Stop trying; a person decides."""

    reason: str
    uncertain: bool = False
    """Whether it may have arrived all the same."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave it as it is: nothing was tried, or what it goes to is down."""

    uncertain: bool = False


Outcome = Retry | Park | Keep
"""What becomes of a delivery that was not sent."""


class Past(NamedTuple):
    """What had become of a delivery before."""

    attempts: int = 0
    """Failed ones that counted."""
    uncertain: bool = False
    """One may have arrived, or still arrive. Only an answer to a later one tells that it is over."""
    part_failures: int = 1
    """How often in a row the part of the destination that it goes to has failed, now included."""


def decide(past: Past, error: SinkError, policy: Policy, jitter: float) -> Outcome:
    """Returns what becomes of a delivery that failed with `error`.

    What was uncertain once is not parked before it was tried again.
    """
    match error:
        case Unsent():
            return Keep(uncertain=error.uncertain)
        case Unavailable(scope="part"):
            delay = policy.breaker.delay(past.part_failures, jitter)
            return Retry(delay, error.reason, counted=False, uncertain=error.uncertain or past.uncertain)
        case Unavailable():
            return Keep(uncertain=error.uncertain)
        case _ if _is_over(past.attempts, error, policy) and (past.uncertain or not error.uncertain):
            return Park(error.reason, uncertain=error.uncertain)
        case _:
            delay = policy.backoff.delay(past.attempts + 1, jitter)
            return Retry(delay, error.reason, uncertain=error.uncertain)


def _is_over(attempts: int, error: SinkError, policy: Policy) -> bool:
    return isinstance(error, Permanent) or attempts + 1 >= policy.max_retries


class Failure(NamedTuple):
    """What to record of a delivery that was not sent."""

    delivery: Delivery
    reason: str
    delay: float | None
    """Seconds to the retry; None parks it."""
    counted: bool
    uncertain: bool


@dataclass(slots=True)
class Verdict:
    """What became of a batch, by what is to be done about it. `judge` makes it."""

    sent: list[tuple[Delivery, Sent]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    expired: list[Delivery] = field(default_factory=list)
    uncertain: list[Delivery] = field(default_factory=list)
    """Left as they are, but they may have arrived."""
    left: list[Delivery] = field(default_factory=list)
    """Left in line."""
    waiting: list[Delivery] = field(default_factory=list)
    """Left too, of what waited for its time."""
    down: dict[str | None, str] = field(default_factory=dict)
    """What cannot be reached, and why; None is the sink."""

    @property
    def settled(self) -> int:
        """How many deliveries there is something to record of."""
        return len(self.sent) + len(self.failures) + len(self.expired)

    def released(self) -> Iterator[Delivery]:
        """The deliveries whose keys waited for them and may wait no longer.

        Those of parked ones may: that is for the park policy in force to say, which the database knows.
        """
        gone = [delivery for delivery, _ in self.sent] + self.expired
        gone += [failure.delivery for failure in self.failures if failure.delay is None]
        return (delivery for delivery in gone if delivery.head)


class Outages(Protocol):
    """What is known of what is down, and remembered of it."""

    def may_open(self, destination: str | None, others: int) -> bool:
        """Whether there is a breaker for it beside so many others that open now."""

    def part_failed(self, destination: str, part: str | None, reason: str) -> int:
        """Takes note that a part of a destination is down; returns how often in a row it was."""


def judge(
    outgoing: Outgoing,
    results: Sequence[Result],
    policy: Policy,
    jitter: Iterator[float],
    outages: Outages,
) -> Verdict:
    """Returns what became of a batch, by one result for each delivery that was to be sent.

    Only the first failure of a key says something; what follows it stays behind it.
    """
    verdict = Verdict(expired=outgoing.expired)
    for delivery in outgoing.left:
        _leave(verdict, delivery)
    for delivery, flaw in outgoing.flawed:
        verdict.failures.append(Failure(delivery, flaw, None, counted=False, uncertain=False))
    failed: list[tuple[Delivery, SinkError]] = []
    for delivery, result in zip(outgoing.send, results, strict=True):
        if isinstance(result, Sent):
            verdict.sent.append((delivery, result))
        else:
            failed.append((delivery, result))
    if failed:
        _judge_failed(verdict, failed, policy, jitter, outages)
    return verdict


def _judge_failed(
    verdict: Verdict,
    failed: Sequence[tuple[Delivery, SinkError]],
    policy: Policy,
    jitter: Iterator[float],
    outages: Outages,
) -> None:
    keys: set[int] = set()
    crippled = _crippled(verdict.sent, failed)
    for delivery, result in failed:
        error = result
        if isinstance(result, Unavailable):
            error = _blame(result, delivery.destination, crippled, verdict, outages)
        if delivery.key_hash in keys:
            # It stays behind the first failure of its key, whatever its own was.
            outcome: Outcome = Keep(uncertain=error.uncertain)
        else:
            keys.add(delivery.key_hash)
            failures = 1
            if isinstance(error, Unavailable) and error.scope == "part":
                failures = outages.part_failed(delivery.destination, error.part, error.reason)
            past = Past(delivery.attempts, delivery.uncertain, failures)
            outcome = decide(past, error, policy, next(jitter))
        _note(verdict, delivery, outcome)


def _crippled(
    sent: Sequence[tuple[Delivery, Sent]], failed: Sequence[tuple[Delivery, SinkError]]
) -> Collection[str]:
    """Returns the destinations of which several parts failed, and more than did not."""
    broken: dict[str, set[str | None]] = defaultdict(set)
    for delivery, error in failed:
        if isinstance(error, Unavailable) and error.scope == "part":
            broken[delivery.destination].add(error.part)
    if not broken:
        return ()
    works: dict[str, set[int | None]] = defaultdict(set)
    for delivery, result in sent:
        works[delivery.destination].add(result.partition)
    return {name for name, parts in broken.items() if len(parts) > max(1, len(works[name]))}


def _blame(
    error: Unavailable, destination: str, crippled: Collection[str], verdict: Verdict, outages: Outages
) -> Unavailable:
    """Returns the error with who is to be left alone for it, and takes note of what is down.

    A destination for which there is no breaker any more is treated like a part: key by key.
    """
    is_part = error.scope == "part"
    if is_part and destination not in crippled:
        return error
    down = None if error.scope == "sink" else destination
    if down in verdict.down or outages.may_open(down, len(verdict.down)):
        verdict.down[down] = error.reason
        scope: Scope = "destination" if is_part else error.scope
    else:
        scope = "part"
    return Unavailable(error.reason, scope=scope, part=error.part, uncertain=error.uncertain)


def _leave(verdict: Verdict, delivery: Delivery) -> None:
    (verdict.waiting if delivery.deferred else verdict.left).append(delivery)


def _note(verdict: Verdict, delivery: Delivery, outcome: Outcome) -> None:
    match outcome:
        case Retry(delay, reason, counted, uncertain):
            verdict.failures.append(Failure(delivery, reason, delay, counted=counted, uncertain=uncertain))
        case Park(reason, uncertain):
            verdict.failures.append(Failure(delivery, reason, None, counted=True, uncertain=uncertain))
        case Keep(uncertain):
            _leave(verdict, delivery)
            if uncertain and not delivery.uncertain:
                verdict.uncertain.append(delivery)
        case _:
            assert_never(outcome)
