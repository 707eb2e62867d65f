"""Compare what the production code gave with what a golden case holds. Pure; numpy only.

Limits of an output are found by its name, then under `float` (floating-point outputs), then under `*`:
`{max_abs, rel_rms}` (rms of the difference over rms of the golden), `{exact}`, or `{max_mismatches, per}` (so many
differing elements for each whole `per` elements, at least once). An output whose name begins with `v<N>_`, or a
part of a document called `v<N>`, belongs to that version and is required only where the version is implemented.
Strings that begin with `EXC:` record an exception of the reference: any answer is right.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ttsfleet_runtime.verify.registry import Case, Outputs

Limits = Mapping[str, Any]
# the prose of the manifest's `compare` -> the input that says which elements count
_MASKS = {"only the frames whose in.mask is 1": "mask"}
_SHAPES = ({"max_abs"}, {"rel_rms"}, {"max_abs", "rel_rms"}, {"exact"}, {"max_mismatches", "per"})
_VERSION_PART = re.compile(r"v(\d+)(_|$)")
_WILDCARDS = ("*", "float")


class UnknownToleranceError(Exception):
    """The manifest asks for a comparison that is not known here; guessing would prove nothing."""


@dataclass(frozen=True)
class Check:
    """One measured number beside its limit. `excess` is measured/limit: above 1 it failed."""

    output: str
    measured: str
    limit: str
    excess: float

    @property
    def passed(self) -> bool:
        return self.excess <= 1.0


@dataclass
class Comparison:
    """All checks of a case, and what of the golden was left out and why."""

    checks: list[Check] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def worst(self) -> Check:
        return max(self.checks, key=lambda check: check.excess)


def compare(
    case: Case,
    produced: Outputs,
    tolerance: Mapping[str, Limits],
    parts: Mapping[str, str],
    versions: Collection[int],
) -> Comparison:
    """Check `produced` against the case. Raises UnknownToleranceError for limits or parts it does not know."""
    check_tolerance(case, tolerance, parts)
    comparison = Comparison()
    if case.document is not None:
        _compare_document(case.document, produced, tolerance, versions, comparison)
    for name, golden in case.outputs.items():
        limits = _limits(tolerance, name, is_float=bool(np.issubdtype(golden.dtype, np.floating)))
        if limits is None:
            comparison.not_compared.append(f"{name} (no tolerance)")
        elif name not in produced and _other_version(name, versions):
            comparison.not_compared.append(f"{name} (version not implemented)")
        elif name not in produced:
            comparison.checks.append(_failure(name, "not produced"))
        else:
            mask = case.inputs[_MASKS[parts[f"out.{name}"]]] if f"out.{name}" in parts else None
            comparison.checks += _compare_array(name, golden, np.asarray(produced[name]), limits, mask)
    return comparison


def check_tolerance(case: Case, tolerance: Mapping[str, Limits], parts: Mapping[str, str]) -> None:
    """Raise UnknownToleranceError when the manifest's limits for this case cannot be applied."""
    if not tolerance:
        raise UnknownToleranceError("no fp32 tolerance")
    for name, limits in tolerance.items():
        if set(limits) not in _SHAPES or limits.get("exact", True) is not True:
            raise UnknownToleranceError(f"tolerance of {name}: {dict(limits)}")
        if not all(_is_limit(key, value) for key, value in limits.items()):
            raise UnknownToleranceError(f"tolerance of {name}: {dict(limits)}")
        if name not in _WILDCARDS and name not in case.outputs and case.document is None:
            raise UnknownToleranceError(f"tolerance of {name}: the case has no such output")
    for name, part in parts.items():
        if part not in _MASKS or name.removeprefix("out.") not in case.outputs:
            raise UnknownToleranceError(f"compare of {name}: {part!r}")


def _is_limit(key: str, value: object) -> bool:
    if key == "exact":
        return value is True
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= (1 if key == "per" else 0)


def _limits(tolerance: Mapping[str, Limits], name: str, *, is_float: bool) -> Limits | None:
    names = (name, "float", "*") if is_float else (name, "*")
    return next((tolerance[key] for key in names if key in tolerance), None)


def _other_version(name: str, versions: Collection[int]) -> bool:
    match = _VERSION_PART.match(name)
    return match is not None and int(match[1]) not in versions


def _failure(output: str, measured: str, limit: str = "") -> Check:
    return Check(output, measured, limit, float("inf"))


def _compare_array(
    name: str, golden: np.ndarray, produced: np.ndarray, limits: Limits, mask: np.ndarray | None
) -> Iterator[Check]:
    if produced.shape != golden.shape:
        yield _failure(name, f"shape {list(produced.shape)}", f"shape {list(golden.shape)}")
        return
    if mask is not None:
        counted = np.broadcast_to(mask > 0.5, golden.shape)
        golden, produced = golden[counted], produced[counted]
    if "exact" in limits or "per" in limits:
        mismatches = int(np.sum(~(golden == produced)))
        allowed = (
            0 if "exact" in limits else int(limits["max_mismatches"]) * max(1, golden.size // int(limits["per"]))
        )
        yield Check(name, f"{mismatches} of {golden.size} differ", f"{allowed}", _excess(mismatches, allowed))
        return
    difference = produced.astype(np.float64) - golden.astype(np.float64)
    if "max_abs" in limits:
        largest = float(np.max(np.abs(difference), initial=0.0))
        yield _number_check(name, "max_abs", largest, limits)
    if "rel_rms" in limits:
        scale = _rms(golden.astype(np.float64))
        error = _rms(difference)
        yield _number_check(name, "rel_rms", error / scale if scale > 0 else error, limits)


def _number_check(name: str, kind: str, measured: float, limits: Limits) -> Check:
    limit = float(limits[kind])
    return Check(name, f"{kind} {measured:.2g}", f"{limit:.2g}", _excess(measured, limit))


def _excess(measured: float, limit: float) -> float:
    """measured/limit; NaN is a failure, and with a limit of 0 anything but 0 is."""
    if not np.isfinite(measured):
        return float("inf")
    return measured / limit if limit > 0 else (0.0 if measured == 0 else float("inf"))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _compare_document(
    document: Any,
    produced: Outputs,
    tolerance: Mapping[str, Limits],
    versions: Collection[int],
    comparison: Comparison,
) -> None:
    """A JSON case: what was produced must equal the document at the same places. A list is called `cases`."""
    parts = document if isinstance(document, dict) else {"cases": document}
    for name, golden in parts.items():
        if name not in produced:
            reason = "version not implemented" if _other_version(name, versions) else "input"
            comparison.not_compared.append(f"{name} ({reason})")
            continue
        walk = _Walk(tolerance)
        walk.visit(name, golden, produced[name])
        left_out = sorted(walk.left_out)
        comparison.not_compared += [f"{name}[].{key} (input)" for key in left_out]
        comparison.checks.append(walk.check(name))
    for name in produced:
        if name not in parts:
            comparison.checks.append(_failure(name, "not in the case"))


class _Walk:
    """Walks a golden value and a produced one side by side, counting leaves that were compared and that differ."""

    def __init__(self, tolerance: Mapping[str, Limits]) -> None:
        self._tolerance = tolerance
        self._num_values = 0
        self._num_wrong = 0
        self._first_wrong = ""
        self.left_out: set[str] = set()

    def check(self, name: str) -> Check:
        if self._num_values == 0:
            return _failure(name, "nothing to compare")
        measured = f"{self._num_wrong} of {self._num_values} differ"
        if self._first_wrong:
            measured += f", first {self._first_wrong}"
        return Check(name, measured, "0", _excess(self._num_wrong, 0))

    def visit(self, where: str, golden: Any, produced: Any) -> None:
        if isinstance(produced, np.ndarray | np.generic):
            produced = produced.tolist()
        if isinstance(golden, str) and golden.startswith("EXC:"):
            self._num_values += 1
        elif isinstance(golden, dict) and isinstance(produced, Mapping):
            self.left_out |= golden.keys() - produced.keys()
            for key, value in produced.items():
                if key in golden:
                    self.visit(f"{where}.{key}", golden[key], value)
                else:
                    self._wrong(f"{where}.{key}", "not in the case", value)
        elif isinstance(golden, list) and isinstance(produced, list | tuple):
            if len(golden) != len(produced):
                self._wrong(where, f"{len(golden)} items", f"{len(produced)} items")
            else:
                self._num_values += not golden
                for index, (left, right) in enumerate(zip(golden, produced, strict=True)):
                    self.visit(f"{where}[{index}]", left, right)
        elif not self._same(golden, produced):
            self._wrong(where, golden, produced)
        else:
            self._num_values += 1

    def _same(self, golden: Any, produced: Any) -> bool:
        limits = _limits(self._tolerance, "", is_float=isinstance(golden, float)) or {}
        if isinstance(golden, float) and isinstance(produced, int | float) and "max_abs" in limits:
            return abs(golden - produced) <= float(limits["max_abs"])
        return type(golden) is type(produced) and bool(golden == produced)

    def _wrong(self, where: str, golden: object, produced: object) -> None:
        self._num_values += 1
        self._num_wrong += 1
        self._first_wrong = self._first_wrong or f"{where}: {produced!r:.60}, golden {golden!r:.60}"
