from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outbox.errors import Permanent, SinkError, Transient, Unavailable, Unsent
from outbox.message import Keep, Park, Retry
from outbox.policy import Backoff, Breaker, Policy, decide

JITTER = st.floats(0, 1, exclude_max=True)
SECONDS = st.floats(0.001, 86_400)
BACKOFFS = st.builds(Backoff, first=SECONDS, longest=SECONDS)
POLICIES = st.builds(Policy, max_retries=st.integers(1, 32_000), backoff=BACKOFFS, breaker=BACKOFFS)
ATTEMPTS = st.integers(0, 40_000)


def errors(*kinds: type[SinkError], **fields: Any) -> st.SearchStrategy[SinkError]:
    return st.sampled_from(kinds).flatmap(
        lambda kind: st.builds(kind, st.just("reason"), **{"uncertain": st.booleans()} | fields)
    )


# Backoff


@given(BACKOFFS, st.integers(1, 10_000))
def test_the_ceiling_doubles_up_to_the_longest(backoff: Backoff, failures: int) -> None:
    now, then = backoff.ceiling(failures), backoff.ceiling(failures + 1)
    assert now <= then <= backoff.longest
    assert then in (2 * now, backoff.longest, now)
    assert backoff.ceiling(1) == min(backoff.first, backoff.longest)


@given(BACKOFFS, st.integers(1, 10_000), JITTER)
def test_a_delay_is_never_zero_and_never_above_its_ceiling(
    backoff: Backoff, failures: int, jitter: float
) -> None:
    assert 0 < backoff.delay(failures, jitter) <= backoff.ceiling(failures)


@given(BACKOFFS, st.integers(1, 100))
def test_jitter_takes_all_of_the_delay(backoff: Backoff, failures: int) -> None:
    assert backoff.delay(failures, 0.0) == backoff.ceiling(failures)
    assert backoff.delay(failures, 0.999) < backoff.ceiling(failures) / 100


# What an error means


@given(ATTEMPTS, POLICIES, JITTER)
def test_what_was_not_tried_stays_as_it_is(attempts: int, policy: Policy, jitter: float) -> None:
    assert decide(attempts, Unsent("behind another"), policy, jitter) == Keep()


@given(ATTEMPTS, errors(Unavailable, scope=st.sampled_from(["sink", "destination"])), POLICIES, JITTER)
def test_an_outage_counts_no_attempt(attempts: int, error: SinkError, policy: Policy, jitter: float) -> None:
    assert decide(attempts, error, policy, jitter) == Keep(uncertain=error.uncertain)


@given(ATTEMPTS, errors(Unavailable, scope=st.just("part")), POLICIES, JITTER)
def test_an_outage_of_a_part_makes_the_key_wait_uncounted(
    attempts: int, error: SinkError, policy: Policy, jitter: float
) -> None:
    outcome = decide(attempts, error, policy, jitter)
    assert isinstance(outcome, Retry)
    assert (outcome.counted, outcome.reason, outcome.uncertain) == (False, "reason", error.uncertain)
    assert 0 < outcome.delay <= policy.breaker.longest


@given(ATTEMPTS, POLICIES, JITTER)
def test_what_can_never_be_sent_is_parked_at_once(attempts: int, policy: Policy, jitter: float) -> None:
    assert decide(attempts, Permanent("too large"), policy, jitter) == Park("too large")


@given(ATTEMPTS, POLICIES, JITTER)
def test_a_failure_is_retried_until_its_attempts_are_used_up(
    attempts: int, policy: Policy, jitter: float
) -> None:
    outcome = decide(attempts, Transient("reason"), policy, jitter)
    if attempts + 1 < policy.max_retries:
        assert outcome == Retry(policy.backoff.delay(attempts + 1, jitter), "reason")
    else:
        assert outcome == Park("reason")


@given(ATTEMPTS, errors(Permanent, Transient, SinkError, uncertain=st.just(value=True)), POLICIES, JITTER)
def test_what_may_have_arrived_is_sent_again_before_it_is_given_up(
    attempts: int, error: SinkError, policy: Policy, jitter: float
) -> None:
    outcome = decide(attempts, error, policy, jitter)
    assert isinstance(outcome, Retry)
    assert outcome.uncertain


@given(ATTEMPTS, POLICIES, JITTER)
def test_an_unknown_error_is_transient(attempts: int, policy: Policy, jitter: float) -> None:
    assert decide(attempts, SinkError("?"), policy, jitter) == decide(
        attempts, Transient("?"), policy, jitter
    )


# Breaker


class BreakerMachine(RuleBasedStateMachine):
    """Against a model that knows only what happened: when it may next let one through."""

    backoff = Backoff(first=1.0, longest=30.0)
    probe_timeout = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(self.backoff, probe_timeout=self.probe_timeout)
        self.now = 1_000.0
        self.failures = 0
        self.probing = False
        self.free_at = 0.0

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.failures)
    @rule()
    def closed_it_lets_all_pass(self) -> None:
        assert self.breaker.admit(self.now) == "pass"

    @precondition(lambda self: self.failures and self.now < self.free_at)
    @rule()
    def open_it_refuses(self) -> None:
        assert self.breaker.admit(self.now) == "refuse"

    @precondition(lambda self: self.failures and self.now >= self.free_at)
    @rule()
    def after_its_wait_it_lets_one_through(self) -> None:
        assert self.breaker.admit(self.now) == "probe"
        assert self.breaker.admit(self.now) == "refuse"
        self.probing, self.free_at = True, self.now + self.probe_timeout

    @rule(jitter=JITTER)
    def it_fails(self, jitter: float) -> None:
        wait = self.breaker.trip(self.now, jitter)
        if self.failures and not self.probing and self.now < self.free_at:
            assert wait == 0
            return
        self.failures += 1
        ceiling = self.backoff.ceiling(self.failures)
        assert ceiling / 2 <= wait <= ceiling
        self.probing, self.free_at = False, self.now + wait

    @precondition(lambda self: self.probing)
    @rule()
    def the_probe_had_nothing_to_send(self) -> None:
        self.breaker.forfeit(self.now)
        self.free_at = self.now

    @rule()
    def it_works(self) -> None:
        assert self.breaker.close() is (self.failures > 0)
        self.failures, self.probing = 0, False

    @invariant()
    def it_is_open_from_a_failure_to_a_success(self) -> None:
        assert self.breaker.open is (self.failures > 0)


TestBreaker = BreakerMachine.TestCase
