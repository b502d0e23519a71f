from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from outbox.demo.ledger import Ledger


@pytest.fixture
def ledger() -> Ledger:
    return Ledger("kafka")


def enter(ledger: Ledger, key: str, count: int) -> list[UUID]:
    ids = [uuid4() for _ in range(count)]
    for each in ids:
        ledger.enter(key, each)
    return ids


def test_what_arrives_in_order_is_well(ledger: Ledger) -> None:
    entered = {key: enter(ledger, key, 3) for key in "ab"}
    for position in range(3):
        for key in "ab":
            ledger.see(key, entered[key][position])
    assert (ledger.written, ledger.arrived, ledger.waiting, ledger.keys) == (6, 6, 0, 2)
    assert ledger.disordered == ledger.repeated == ledger.phantoms == 0
    assert not ledger.missing
    assert ledger.oldest is None
    assert len(ledger.lags) == 6


def test_an_earlier_one_after_a_later_one_is_out_of_order(ledger: Ledger) -> None:
    first, second, third = enter(ledger, "a", 3)
    for each in (third, first, second):
        ledger.see("a", each)
    assert (ledger.arrived, ledger.disordered) == (3, 2)


def test_an_earlier_one_that_never_comes_is_missing_and_no_disorder(ledger: Ledger) -> None:
    first, second = enter(ledger, "a", 2)
    ledger.see("a", second)
    assert list(ledger.missing) == [first]
    assert ledger.awaits("a", first)
    assert (ledger.waiting, ledger.disordered) == (1, 0)


def test_what_comes_again_is_no_disorder(ledger: Ledger) -> None:
    ids = enter(ledger, "a", 2)
    for each in (*ids, *ids):
        ledger.see("a", each)
    assert (ledger.arrived, ledger.repeated, ledger.disordered) == (2, 2, 0)


def test_what_was_rolled_back_must_not_arrive(ledger: Ledger) -> None:
    (withdrawn,) = enter(ledger, "a", 1)
    ledger.withdraw("a", withdrawn)
    (kept,) = enter(ledger, "a", 1)
    ledger.see("a", kept)
    assert (ledger.written, ledger.waiting, ledger.phantoms) == (1, 0, 0)
    ledger.see("a", withdrawn)
    assert (ledger.arrived, ledger.phantoms) == (1, 1)


def test_what_arrives_before_it_is_rolled_back_is_a_phantom_too(ledger: Ledger) -> None:
    (early,) = enter(ledger, "a", 1)
    ledger.see("a", early)
    ledger.withdraw("a", early)
    assert (ledger.written, ledger.arrived, ledger.waiting, ledger.phantoms) == (0, 0, 0, 1)


def test_what_expired_is_waited_for_no_longer(ledger: Ledger) -> None:
    first, second = enter(ledger, "a", 2)
    ledger.expire(second)
    ledger.expire(uuid4())
    assert (ledger.waiting, ledger.expired) == (1, 1)
    ledger.see("a", first)
    assert ledger.waiting == 0


def test_others_keys_are_not_known(ledger: Ledger) -> None:
    enter(ledger, "a", 1)
    assert ledger.knows("a")
    assert not ledger.knows("b")
