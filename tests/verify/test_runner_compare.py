"""How what was produced is judged against a golden case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ttsfleet_runtime.verify.compare import Comparison, UnknownToleranceError, compare
from ttsfleet_runtime.verify.registry import Case

ONES = np.ones(4, np.float32)
IDS = np.arange(120)


def judge(
    golden: Any,
    produced: Any,
    tolerance: Mapping[str, Any],
    parts: Mapping[str, str] | None = None,
    inputs: Mapping[str, np.ndarray] | None = None,
) -> Comparison:
    is_array = isinstance(golden, np.ndarray)
    outputs = {"x": golden} if is_array else {}
    document = None if is_array else {"x": golden}
    case = Case("a/b", "f", 2, {}, inputs or {}, outputs, document)
    return compare(case, {} if produced is None else {"x": produced}, tolerance, parts or {}, (2,))


def mistaken(count: int) -> np.ndarray:
    changed = IDS.copy()
    changed[:count] += 1
    return changed


@pytest.mark.parametrize(
    ("golden", "produced", "tolerance", "passes"),
    [
        (ONES, ONES + 0.9e-3, {"x": {"max_abs": 1e-3}}, True),
        (ONES, ONES + 1.1e-3, {"x": {"max_abs": 1e-3}}, False),
        (ONES, ONES * 1.02, {"x": {"max_abs": 1.0, "rel_rms": 0.01}}, False),
        (100 * ONES, 100 * ONES + 0.5, {"x": {"rel_rms": 0.01}}, True),
        (ONES, ONES * np.nan, {"x": {"max_abs": 1e9}}, False),
        (ONES, ONES[:3], {"x": {"max_abs": 1e9}}, False),
        (ONES, ONES[None], {"x": {"max_abs": 1e9}}, False),
        (ONES, None, {"x": {"max_abs": 1e9}}, False),
        (ONES, ONES + 1e-4, {"*": {"exact": True}}, False),
        (ONES, ONES + 1e-4, {"*": {"exact": True}, "float": {"max_abs": 1e-3}}, True),
        (IDS, IDS + 1, {"*": {"exact": True}, "float": {"max_abs": 9}}, False),
        (IDS, IDS, {"*": {"exact": True}}, True),
        (ONES, ONES + 1e-4, {"x": {"max_abs": 1e-5}, "float": {"max_abs": 1e-3}}, False),
        (IDS, mistaken(2), {"x": {"max_mismatches": 1, "per": 60}}, True),
        (IDS, mistaken(3), {"x": {"max_mismatches": 1, "per": 60}}, False),
        (IDS[:20], mistaken(1)[:20], {"x": {"max_mismatches": 1, "per": 60}}, True),
        (np.zeros(3), np.zeros(3), {"x": {"max_abs": 0, "rel_rms": 0}}, True),
    ],
)
def test_array_is_judged_by_its_limits(golden: np.ndarray, produced: Any, tolerance: Any, passes: bool) -> None:
    assert judge(golden, produced, tolerance).passed is passes


EXACT = {"*": {"exact": True}, "float": {"max_abs": 5e-4}}


@pytest.mark.parametrize(
    ("golden", "produced", "passes"),
    [
        ([{"text": "a", "ids": [1, 2]}], [{"ids": [1, 2]}], True),
        ([{"text": "a", "ids": [1, 2]}], [{"ids": [1, 3]}], False),
        ([{"text": "a", "ids": [1, 2]}], [{"ids": [1]}], False),
        ([{"text": "a", "ids": [1, 2]}], [{"ids": np.array([1, 2])}], True),
        ([{"text": "a"}], [{"text": "a", "more": 1}], False),
        ([{"text": "a"}], [{}], False),
        ([1, 2], [1, 2, 3], False),
        ([], [], True),
        (["EXC:IndexError"], ["anything"], True),
        ([True], [1], False),
        ([None], [None], True),
        ([0.5], [0.5004], True),
        ([0.5], [0.51], False),
        ("a", "b", False),
    ],
)
def test_document_is_judged_value_by_value(golden: Any, produced: Any, passes: bool) -> None:
    assert judge(golden, produced, EXACT).passed is passes


def test_first_difference_in_a_document_is_shown_with_its_place() -> None:
    checks = judge([{"ids": [1, 2]}, {"ids": [3]}], [{"ids": [1, 2]}, {"ids": [4]}], EXACT).checks
    assert [check.measured for check in checks] == ["1 of 3 differ, first x[1].ids[0]: 4, golden 3"]


def test_only_the_frames_of_the_mask_count() -> None:
    golden, produced = np.zeros((1, 2, 3)), np.array([[[0, 0, 9], [0, 0, 9]]])
    parts = {"out.x": "only the frames whose in.mask is 1"}
    mask = {"mask": np.array([[[1.0, 1.0, 0.0]]])}
    assert judge(golden, produced, {"x": {"max_abs": 0.1}}, parts, mask).passed
    assert not judge(golden, produced, {"x": {"max_abs": 0.1}}).passed


@pytest.mark.parametrize(
    "tolerance",
    [
        {"x": {"max_ulp": 3}},
        {"x": {"max_abs": 1, "p99": 1}},
        {"x": {"exact": False}},
        {"x": {"max_abs": "small"}},
        {"x": {"max_mismatches": 1, "per": 0}},
        {"x": {}},
        {"y": {"max_abs": 1}},
        {},
    ],
)
def test_unknown_tolerance_is_not_guessed(tolerance: Any) -> None:
    with pytest.raises(UnknownToleranceError):
        judge(ONES, ONES, tolerance)


def test_unknown_part_is_not_guessed() -> None:
    with pytest.raises(UnknownToleranceError):
        judge(ONES, ONES, {"x": {"max_abs": 1}}, {"out.x": "only the loud ones"})


def test_output_of_another_version_is_listed_as_not_compared() -> None:
    case = Case("common/a", "f", None, {}, {}, {"v3_table": ONES, "table": ONES}, None)
    tolerance = {"*": {"exact": True}}
    comparison = compare(case, {"table": ONES}, tolerance, {}, (2,))
    assert comparison.passed
    assert comparison.not_compared == ["v3_table (version not implemented)"]
    assert not compare(case, {"table": ONES}, tolerance, {}, (2, 3)).passed


def test_case_of_which_nothing_was_compared_does_not_pass() -> None:
    case = Case("common/a", "f", None, {}, {}, {}, {"note": "x"})
    assert not compare(case, {}, EXACT, {}, (2,)).passed
