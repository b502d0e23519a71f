from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outbox.relay.wake import Wake


def test_it_waits_ever_longer_while_idle_up_to_the_longest() -> None:
    wake = Wake(0.001, 0.1)
    waits = [wake.after(0, full=False) for _ in range(9)]
    assert waits == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1, 0.1]


def test_what_was_found_makes_it_quick_again() -> None:
    wake = Wake(0.001, 0.1)
    for _ in range(9):
        wake.after(0, full=False)
    assert wake.after(1, full=False) == 0.001
    assert wake.after(0, full=False) == 0.001


def test_after_a_full_batch_it_does_not_wait() -> None:
    assert Wake(0.001, 0.1).after(2_000, full=True) == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans())))
def test_it_never_waits_longer_than_it_may_and_only_a_full_batch_is_not_waited_after(
    looks: list[tuple[int, bool]],
) -> None:
    wake = Wake(0.5, 2.0)
    for rows, full in looks:
        wait = wake.after(rows, full=full)
        assert wait <= 2.0
        assert (wait == 0.0) == (rows > 0 and full)
