from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from outbox.errors import Permanent, Transient, Unavailable, Unsent
from outbox.message import Delivery, Result, Sent
from outbox.policy import Policy
from outbox.relay.verdict import Verdict, highest_in_line
from tests.support.deliveries import delivery

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


def judged(
    batch: Sequence[Delivery], *results: Result, on_park: Literal["continue", "hold"] = "continue"
) -> Verdict:
    verdict = Verdict()
    verdict.judge(batch, results, Policy(on_park=on_park), repeat(0.5))
    return verdict


def test_only_the_first_failure_of_a_key_is_recorded() -> None:
    first, second, third = (delivery("d", "a") for _ in range(3))
    verdict = judged([first, second, third], Transient("no"), Transient("no"), Unsent("behind"))
    assert [failure.delivery for failure in verdict.failures] == [first]
    assert verdict.left == {0: second.id}


def test_what_may_have_arrived_behind_a_failure_is_remembered() -> None:
    first, second = (delivery("d", "a") for _ in range(2))
    verdict = judged([first, second], Transient("no"), Transient("no", uncertain=True))
    assert verdict.uncertain == [second]


def test_what_is_down_is_told_by_destination_or_for_the_sink() -> None:
    batch = [delivery("d"), delivery("e"), delivery("f")]
    results = Unavailable("all"), Unavailable("e", scope="destination"), Unavailable("f", scope="part")
    assert judged(batch, *results).down == {None: "all", "e": "e"}


def test_a_parked_head_releases_its_key_unless_the_policy_holds_it() -> None:
    head = delivery("d", "a", head=True, deferred=True)
    assert list(judged([head], Permanent("no")).released()) == [head]
    assert list(judged([head], Permanent("no"), on_park="hold").released()) == []
    assert list(judged([head], Transient("no")).released()) == []
    assert list(judged([head], Sent()).released()) == [head]


@given(st.lists(st.tuples(st.integers(0, 3), RESULTS), max_size=30))
def test_every_delivery_is_recorded_once_or_stays_in_line(answers: list[tuple[int, Result]]) -> None:
    batch = [delivery("d", str(key), lane=key) for key, _ in answers]
    verdict = judged(batch, *(result for _, result in answers))
    settled = [d for d, _ in verdict.sent] + [failure.delivery for failure in verdict.failures]
    assert len(set(settled)) == len(settled) == verdict.settled
    kept = [d for d in batch if d not in set(settled)]
    for lane in range(4):
        assert verdict.left.get(lane) == min((d.id for d in kept if d.lane == lane), default=None)
    assert set(verdict.uncertain) <= set(kept)


def test_the_highest_in_line_counts_where_ids_rose() -> None:
    low, high, other, retried = (delivery("d", lane=lane) for lane in (1, 1, 2, 1))
    retried = retried._replace(deferred=True)
    assert highest_in_line([retried, low, high, other]) == {1: high.id, 2: other.id}
    assert highest_in_line([high, low, other]) == {1: 0, 2: other.id}
