"""When a process gives unused heap back: after a rest, after long work, never without work."""

from __future__ import annotations

import pytest

from ttsfleet_runtime.heap import BUSY_SECONDS, REST_SECONDS, HeapTrimmer


@pytest.mark.parametrize(
    ("work", "asked", "expected"),
    [
        pytest.param([], [REST_SECONDS, BUSY_SECONDS + 1], [], id="never without work"),
        pytest.param([1.0], [2.0, 9.0], [], id="not while a next request is likely"),
        pytest.param([1.0], [11.5, 30.0, 100.0], [11.5], id="once after a rest"),
        pytest.param([59.0, 60.0], [30.0, 61.0], [61.0], id="amid lasting work"),
        pytest.param([1.0, 20.0], [12.0, 15.0, 31.0], [12.0, 31.0], id="again after more work"),
    ],
)
def test_heap_is_trimmed_after_rest_and_after_long_work(
    work: list[float], asked: list[float], expected: list[float]
) -> None:
    now, trimmed = 0.0, []

    def trim(_keep_bytes: int) -> int:
        trimmed.append(now)
        return 1

    trimmer = HeapTrimmer(0.0, trim)
    for now, is_work in sorted([(at, True) for at in work] + [(at, False) for at in asked]):
        if is_work:
            trimmer.worked(now)
        else:
            trimmer.trim_if_due(now)
    assert trimmed == expected


def test_the_c_library_trims_here() -> None:
    trimmer = HeapTrimmer(0.0)
    trimmer.worked(1.0)
    assert trimmer.trim_if_due(100.0)
