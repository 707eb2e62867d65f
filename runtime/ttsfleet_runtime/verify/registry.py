"""Golden cases and the functions that run them. A case function goes through the production code only.

Each module `verify/*_cases.py` registers one function per `fn` of MANIFEST.json with `@golden("fn")`. It gets the
case and a `Context` and returns its outputs as numpy arrays or plain JSON values under the names of MANIFEST
(without the `out.` prefix); the runner compares them with the case's tolerances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Outputs = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One golden case. `inputs`/`outputs`: arrays by name without `in.`/`out.`; for a JSON case `document` is it."""

    name: str
    fn: str
    version: int | None
    meta: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    document: Any


@dataclass(frozen=True)
class Context:
    """Where to run: the published model directory of the case (None for common cases), its bundle, the device."""

    goldens_dir: Path
    model_dir: Path | None
    bundle_dir: Path | None
    device: str


CaseFunction = Callable[[Case, Context], Outputs]
REGISTRY: dict[str, CaseFunction] = {}


def golden(fn: str) -> Callable[[CaseFunction], CaseFunction]:
    """Register the decorated function as the way to run the cases whose `fn` this is."""

    def register(function: CaseFunction) -> CaseFunction:
        assert fn not in REGISTRY, fn
        REGISTRY[fn] = function
        return function

    return register
