from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outbox.policy import Backoff
from outbox.relay.breakers import Breaker

JITTER = st.floats(0, 1, exclude_max=True)


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
