"""What became of a golden case: what `runner` finds and `table` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ttsfleet_runtime.verify.compare import Check

NOT_SELECTED = "not selected"


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "FAILED"
    NOT_RUN = "not run"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Result:
    """What became of a case. `checks` is empty unless it ran to the end; `note` says why, or what was left out."""

    name: str
    fn: str
    outcome: Outcome
    checks: Sequence[Check] = ()
    note: str = ""
    seconds: float = 0.0
