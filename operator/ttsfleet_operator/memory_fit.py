"""The search for a smaller plan that fits: which values may be lowered, in which order. Pure.

The order trades what costs least: first TensorRT's share, then a smaller KV pool, then decoders, and workers last,
since a worker is throughput. Every candidate that was lowered stays at or above a floor that still serves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ttsfleet_operator.memory import MemoryEstimate

MIN_POOL_TOKENS = 8192
_LOWERED = ("workers", "decode_process_num", "max_total_token_num", "load_trt")  # the last varies first


@dataclass(frozen=True)
class Lowering:
    """The changed values by name, and the estimate with them."""

    changes: dict[str, object]
    estimate: MemoryEstimate


def lower_to_fit(
    engine: Mapping[str, object],
    fixed: frozenset[str],
    estimate: Callable[[Mapping[str, object]], MemoryEstimate],
) -> Lowering | None:
    """The mildest lowering of values outside `fixed` with which the plan fits; None when there is none."""
    names = [name for name in _LOWERED if name in engine]
    choices = [[engine[name]] if name in fixed else _steps(name, engine[name]) for name in names]
    for candidate in itertools.product(*choices):
        lowered = dict(engine) | dict(zip(names, candidate, strict=True))
        pool, longest = lowered["max_total_token_num"], lowered["max_req_total_len"]
        assert isinstance(pool, int)
        assert isinstance(longest, int)
        if longest > pool:
            if "max_req_total_len" in fixed:
                continue
            lowered["max_req_total_len"] = pool
        result = estimate(lowered)
        if result.fits:
            changes = {name: value for name, value in lowered.items() if value != engine[name]}
            return Lowering(changes, result)
    return None


def _steps(name: str, value: object) -> list[object]:
    """A value and what it may be lowered to, mildest first."""
    if name == "load_trt":
        return [True, False] if value else [False]
    assert isinstance(value, int)
    if name == "max_total_token_num":
        steps: list[object] = [value]
        return steps + [value // part for part in (2, 4) if value // part >= MIN_POOL_TOKENS]
    return list(range(value, 0, -1)) or [value]
