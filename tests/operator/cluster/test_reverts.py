"""When a fight over a field is given up, and when it is taken up again."""

from __future__ import annotations

from ttsfleet_operator.cluster.reverts import RevertLedger
from ttsfleet_operator.cluster.stores import ObjectKey

SERVICE = ObjectKey("n", "narrator")
PATH = ("spec", "type")
OTHER = ("spec", "ports")


def fought(ledger: RevertLedger, times: int, stamp: str = "s", every: float = 1.0) -> frozenset[tuple[str, ...]]:
    lost: frozenset[tuple[str, ...]] = frozenset()
    for turn in range(times):
        lost = ledger.record(SERVICE, "Service/a", stamp, [PATH], turn * every)
    return lost


def test_three_repairs_are_made_and_the_fourth_is_not() -> None:
    ledger = RevertLedger()
    assert fought(ledger, 3) == frozenset()
    assert ledger.record(SERVICE, "Service/a", "s", [PATH, OTHER], 4.0) == {PATH}
    assert ledger.given_up(SERVICE, "Service/a", "s") == {PATH}


def test_a_repair_that_did_not_happen_does_not_count() -> None:
    ledger = RevertLedger()
    for turn in range(10):
        assert ledger.record(SERVICE, "Service/a", "s", [PATH], float(turn)) == frozenset()
        ledger.withdraw(SERVICE, "Service/a", [PATH])
    assert fought(ledger, 3) == frozenset()
    assert fought(ledger, 1) == {PATH}


def test_repairs_that_are_ten_minutes_apart_go_on() -> None:
    assert fought(RevertLedger(), 50, every=300.0) == frozenset()


def test_a_new_wish_begins_anew() -> None:
    ledger = RevertLedger()
    fought(ledger, 4)
    assert ledger.given_up(SERVICE, "Service/a", "other") == frozenset()
    assert ledger.record(SERVICE, "Service/a", "other", [PATH], 5.0) == frozenset()


def test_a_field_that_holds_what_we_want_is_ours_again() -> None:
    ledger = RevertLedger()
    fought(ledger, 4)
    ledger.settle(SERVICE, "Service/a", [PATH])
    assert ledger.given_up(SERVICE, "Service/a", "s") == frozenset()
    assert ledger.record(SERVICE, "Service/a", "s", [PATH], 6.0) == frozenset()


def test_what_was_written_is_remembered_by_its_stamp() -> None:
    ledger = RevertLedger()
    assert not ledger.was_applied(SERVICE, "Service/a", "s")
    ledger.applied(SERVICE, "Service/a", "s")
    assert ledger.was_applied(SERVICE, "Service/a", "s")
    assert not ledger.was_applied(SERVICE, "Service/a", "t")
    ledger.forget(SERVICE)
    assert not ledger.was_applied(SERVICE, "Service/a", "s")
