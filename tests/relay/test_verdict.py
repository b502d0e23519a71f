from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from outbox.errors import Permanent, SinkError, Transient, Unavailable, Unsent
from outbox.message import Delivery, Result, Sent
from outbox.observe import watch
from outbox.policy import Backoff, Policy
from outbox.relay.breakers import SinkBreakers
from outbox.relay.outgoing import Outgoing, sort_out
from outbox.relay.verdict import (
    Keep,
    Park,
    Past,
    Retry,
    Verdict,
    decide,
    judge,
)
from tests.support.deliveries import delivery

JITTER = st.floats(0, 1, exclude_max=True)
SECONDS = st.floats(0.001, 86_400)
BACKOFFS = st.builds(Backoff, first=SECONDS, longest=SECONDS)
POLICIES = st.builds(Policy, max_retries=st.integers(1, 32_000), backoff=BACKOFFS, breaker=BACKOFFS)
ATTEMPTS = st.integers(0, 40_000)
RESULTS = st.sampled_from(
    [
        Sent(),
        Unsent("behind"),
        Transient("t"),
        Transient("t", uncertain=True),
        Permanent("p"),
        Unavailable("u"),
        Unavailable("u", scope="destination", uncertain=True),
        Unavailable("u", scope="part"),
    ]
)


def errors(*kinds: type[SinkError], **fields: Any) -> st.SearchStrategy[SinkError]:
    return st.sampled_from(kinds).flatmap(
        lambda kind: st.builds(kind, st.just("reason"), **{"uncertain": st.booleans()} | fields)
    )


# What an error means


@given(ATTEMPTS, POLICIES, JITTER)
def test_what_was_not_tried_stays_as_it_is(attempts: int, policy: Policy, jitter: float) -> None:
    assert decide(Past(attempts), Unsent("behind another"), policy, jitter) == Keep()


@given(ATTEMPTS, errors(Unavailable, scope=st.sampled_from(["sink", "destination"])), POLICIES, JITTER)
def test_an_outage_counts_no_attempt(attempts: int, error: SinkError, policy: Policy, jitter: float) -> None:
    assert decide(Past(attempts), error, policy, jitter) == Keep(uncertain=error.uncertain)


@given(ATTEMPTS, errors(Unavailable, scope=st.just("part")), POLICIES, JITTER)
def test_an_outage_of_a_part_makes_the_key_wait_uncounted(
    attempts: int, error: SinkError, policy: Policy, jitter: float
) -> None:
    outcome = decide(Past(attempts), error, policy, jitter)
    assert isinstance(outcome, Retry)
    assert (outcome.counted, outcome.reason, outcome.uncertain) == (False, "reason", error.uncertain)
    assert 0 < outcome.delay <= policy.breaker.longest


@given(ATTEMPTS, POLICIES, JITTER)
def test_what_can_never_be_sent_is_parked_at_once(attempts: int, policy: Policy, jitter: float) -> None:
    assert decide(Past(attempts), Permanent("too large"), policy, jitter) == Park("too large")


@given(ATTEMPTS, POLICIES, JITTER)
def test_a_failure_is_retried_until_its_attempts_are_used_up(
    attempts: int, policy: Policy, jitter: float
) -> None:
    outcome = decide(Past(attempts), Transient("reason"), policy, jitter)
    if attempts + 1 < policy.max_retries:
        assert outcome == Retry(policy.backoff.delay(attempts + 1, jitter), "reason")
    else:
        assert outcome == Park("reason")


UNCERTAIN = errors(Permanent, Transient, SinkError, uncertain=st.just(value=True))


@given(ATTEMPTS, UNCERTAIN, POLICIES, JITTER)
def test_what_may_have_arrived_is_sent_again_before_it_is_given_up(
    attempts: int, error: SinkError, policy: Policy, jitter: float
) -> None:
    outcome = decide(Past(attempts), error, policy, jitter)
    assert isinstance(outcome, Retry)
    assert outcome.uncertain


@given(ATTEMPTS, UNCERTAIN, POLICIES, JITTER)
def test_an_answer_that_is_always_uncertain_ends_with_a_decision(
    attempts: int, error: SinkError, policy: Policy, jitter: float
) -> None:
    outcome = decide(Past(attempts, uncertain=True), error, policy, jitter)
    if isinstance(error, Permanent) or attempts + 1 >= policy.max_retries:
        assert outcome == Park("reason", uncertain=True)
    else:
        assert isinstance(outcome, Retry)
        assert outcome.counted


@given(ATTEMPTS, errors(Unavailable, scope=st.just("part")), POLICIES, JITTER)
def test_what_may_have_arrived_stays_so_until_an_answer(
    attempts: int, error: SinkError, policy: Policy, jitter: float
) -> None:
    outcome = decide(Past(attempts, uncertain=True), error, policy, jitter)
    assert isinstance(outcome, Retry)
    assert outcome.uncertain


@given(ATTEMPTS, POLICIES, JITTER)
def test_an_unknown_error_is_transient(attempts: int, policy: Policy, jitter: float) -> None:
    assert decide(Past(attempts), SinkError("?"), policy, jitter) == decide(
        Past(attempts), Transient("?"), policy, jitter
    )


# What becomes of a batch

BREAKERS = SinkBreakers("test", Backoff(), pumps=1)


def judged(batch: Sequence[Delivery], *results: Result) -> Verdict:
    return judge(Outgoing(list(batch), [], [], []), results, Policy(), repeat(0.5), BREAKERS)


def test_only_the_first_failure_of_a_key_is_recorded() -> None:
    first, second, third = (delivery("d", "a") for _ in range(3))
    verdict = judged([first, second, third], Transient("no"), Transient("no"), Unsent("behind"))
    assert [failure.delivery for failure in verdict.failures] == [first]
    assert verdict.left == [second, third]


def test_what_may_have_arrived_behind_a_failure_is_remembered() -> None:
    first, second = (delivery("d", "a") for _ in range(2))
    verdict = judged([first, second], Transient("no"), Transient("no", uncertain=True))
    assert verdict.uncertain == [second]


def test_what_is_down_is_told_by_destination_or_for_the_sink() -> None:
    batch = [delivery("d"), delivery("e"), delivery("f")]
    results = Unavailable("all"), Unavailable("e", scope="destination"), Unavailable("f", scope="part")
    assert judged(batch, *results).down == {None: "all", "e": "e"}


def test_where_most_parts_fail_their_destination_is_down() -> None:
    batch = [delivery("d"), delivery("d"), delivery("d"), delivery("e"), delivery("e")]
    down = (
        Unavailable("one", scope="part", part="1"),
        Unavailable("two", scope="part", part="2"),
        Sent(partition=3),
    )
    half = Unavailable("one", scope="part", part="1"), Sent(partition=2)
    verdict = judged(batch, *down, *half)
    assert verdict.down == {"d": "two"}
    assert verdict.left == batch[:2]
    assert [(failure.delivery, failure.counted) for failure in verdict.failures] == [(batch[3], False)]
    assert judged(batch[:2], down[0], down[0]).down == {}


def test_a_destination_of_which_a_few_parts_work_is_left_alone_ever_longer() -> None:
    now = 0.0
    backoff = Backoff(first=1.0, longest=30.0)
    breakers = SinkBreakers("test", backoff, pumps=1, clock=lambda: now, jitter=lambda: 0.0)
    waits = []
    for _ in range(6):
        breakers.trip("d", "two of three are down")
        began = now
        while not _is_probed(breakers):
            now += 0.5
        waits.append(now - began)
        breakers.close("d")
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    now += 31.0
    breakers.trip("d", "again, much later")
    now += 1.0
    assert _is_probed(breakers)


def _is_probed(breakers: SinkBreakers) -> bool:
    with breakers.admission(0) as admission:
        return bool(admission.probes)


def test_a_part_that_goes_on_failing_is_tried_ever_more_rarely() -> None:
    now = 0.0
    breakers = SinkBreakers("test", Backoff(first=1.0, longest=30.0), pumps=1, clock=lambda: now)
    waits = []
    for _ in range(6):
        failures = {breakers.part_failed("d", "1", "no") for _ in range(1_000)}
        (count,) = failures
        waits.append(Backoff(first=1.0, longest=30.0).ceiling(count))
        now += waits[-1]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    now += 61.0
    assert breakers.part_failed("d", "1", "no") == 1


async def test_what_is_remembered_of_parts_is_bounded() -> None:
    breakers = SinkBreakers("test", Backoff(), pumps=1, clock=lambda: 0.0)
    with watch() as events:
        for number in range(10_000):
            assert breakers.part_failed(f"d{number}", None, "no") == 1
    assert len(events.matching("part.failed")) == 257
    assert events.matching("part.failed", destination=None)


def test_what_waited_for_a_head_is_looked_for_unless_that_is_tried_again() -> None:
    head = delivery("d", "a", head=True, deferred=True)
    assert list(judged([head], Permanent("no")).released()) == [head]
    assert list(judged([head], Transient("no")).released()) == []
    assert list(judged([head], Sent()).released()) == [head]


@given(st.lists(st.tuples(st.integers(0, 3), RESULTS), max_size=30))
def test_every_delivery_is_recorded_once_or_stays_in_line(answers: list[tuple[int, Result]]) -> None:
    batch = [delivery("d", str(key), lane=key) for key, _ in answers]
    verdict = judged(batch, *(result for _, result in answers))
    settled = [d for d, _ in verdict.sent] + [failure.delivery for failure in verdict.failures]
    assert len(set(settled)) == len(settled) == verdict.settled
    kept = [d for d in batch if d not in set(settled)]
    assert verdict.left == kept
    assert set(verdict.uncertain) <= set(kept)


def test_a_probe_is_the_first_delivery_to_its_destination() -> None:
    first, second, other = delivery("probed"), delivery("probed"), delivery("other")
    assert sort_out([other, second, first], probes={"probed"}) == ([first, other], [], [second], [])


def test_what_is_left_for_a_probe_stays_in_line() -> None:
    probe, behind = delivery("d", lane=3), delivery("d", lane=3)
    verdict = judge(sort_out([probe, behind], probes={"d"}), [Sent()], Policy(), repeat(0.5), BREAKERS)
    assert (verdict.settled, verdict.left) == (1, [behind])


def test_what_is_too_late_is_not_sent_unless_it_may_have_arrived() -> None:
    late, open_ = delivery("d", expired=True), delivery("d", expired=True, uncertain=True)
    assert sort_out([late, open_]) == ([open_], [late], [], [])


def test_what_is_behind_a_fault_of_its_key_waits_for_a_later_round() -> None:
    flawed, behind, other = delivery("d", "a", lane=1), delivery("d", "a", lane=1), delivery("d", "b", lane=1)
    flaw = "too large"
    outgoing = sort_out([flawed, behind, other], flaws={flawed.id: flaw})
    assert tuple(outgoing) == ([other], [], [behind], [(flawed, flaw)])
    verdict = judge(outgoing, [Sent()], Policy(), repeat(0.5), BREAKERS)
    assert [(f.delivery, f.reason, f.delay) for f in verdict.failures] == [(flawed, "too large", None)]
    assert verdict.left == [behind]
