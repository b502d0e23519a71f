from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outbox.policy import Backoff

JITTER = st.floats(0, 1, exclude_max=True)
SECONDS = st.floats(0.001, 86_400)
BACKOFFS = st.builds(Backoff, first=SECONDS, longest=SECONDS)


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
