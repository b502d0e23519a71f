from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outbox.relay.wake import Wake


def test_it_waits_ever_longer_while_idle_up_to_the_longest() -> None:
    wake = Wake(0.001, 0.1)
    waits = [wake.after(0, more=False) for _ in range(9)]
    assert waits == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1, 0.1]


def test_what_was_found_makes_it_quick_again() -> None:
    wake = Wake(0.001, 0.1)
    for _ in range(9):
        wake.after(0, more=False)
    assert wake.after(1, more=False) == 0.001
    assert wake.after(0, more=False) == 0.001


def test_who_is_told_of_what_is_written_does_not_look_in_vain() -> None:
    wake = Wake(0.001, 0.1)
    assert wake.after(1, more=False, watched=True) == 0.001
    assert wake.after(0, more=False, watched=True) == 0.1
    assert wake.after(1, more=False) == 0.001
    assert wake.after(0, more=False) == 0.001


def test_where_more_is_found_it_does_not_wait() -> None:
    assert Wake(0.001, 0.1).after(2_000, more=True) == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans())))
def test_it_never_waits_longer_than_it_may_and_waits_unless_more_is_found(
    looks: list[tuple[int, bool]],
) -> None:
    wake = Wake(0.5, 2.0)
    for rows, more in looks:
        wait = wake.after(rows, more=more)
        assert wait <= 2.0
        assert (wait == 0.0) == more
