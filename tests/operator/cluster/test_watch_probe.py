"""Which differences between a list and what was delivered are gaps."""

from __future__ import annotations

import pytest

from ttsfleet_operator.cluster.stores import ObjectKey
from ttsfleet_operator.cluster.watch_probe import undelivered

A, B = ObjectKey("n", "a"), ObjectKey("n", "b")

CASES = [
    pytest.param({A: 1}, {A: 1}, {A: 1}, [], id="all quiet"),
    pytest.param({A: 1}, {A: 2}, {A: 2}, [], id="delivered within the grace"),
    pytest.param({A: 1}, {A: 2}, {A: 3}, [], id="changed again since the list"),
    pytest.param({A: 1}, {A: 2}, {A: 1}, [A], id="a change was not delivered"),
    pytest.param({}, {A: 1}, {}, [A], id="a new object was not delivered"),
    pytest.param({}, {A: 1}, {A: 1}, [], id="a new object came within the grace"),
    pytest.param({A: 1}, {}, {A: 1}, [A], id="a deletion was not delivered"),
    pytest.param({A: 1}, {}, {}, [], id="a deletion came within the grace"),
    pytest.param({A: 1}, {}, {A: 5}, [], id="created anew after the list"),
    pytest.param({A: 1}, {A: 1}, {}, [], id="deleted after the list"),
    pytest.param({A: 1, B: 1}, {A: 2, B: 2}, {A: 1, B: 2}, [A], id="one of two"),
]


@pytest.mark.parametrize(("before", "listed", "after", "gaps"), CASES)
def test_a_gap_is(
    before: dict[ObjectKey, int], listed: dict[ObjectKey, int], after: dict[ObjectKey, int], gaps: list[ObjectKey]
) -> None:
    assert undelivered(before, listed, after) == gaps
