"""Every golden case of version 2, and the common ones, through the runner that `ttsfleet-runtime verify` uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttsfleet_runtime.verify.manifest import Entry, read_manifest
from ttsfleet_runtime.verify.runner import Outcome, Runner, Selection, load_case_modules, use_exact_float32

GOLDENS_DIR = Path(__file__).resolve().parent.parent / "goldens"
SELECTION = Selection(model_version=2)
ENTRIES = [entry for entry in read_manifest(GOLDENS_DIR) if not SELECTION.reason_not_to_run(entry)]


@pytest.fixture(scope="module")
def runner(bundle_cache: Path) -> Runner:
    load_case_modules()
    use_exact_float32()
    return Runner(GOLDENS_DIR, bundle_cache)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
def test_golden_case_is_reproduced(entry: Entry, runner: Runner) -> None:
    result = runner.run(entry)
    failed = [
        f"{check.output}: {check.measured}, allowed {check.limit}" for check in result.checks if not check.passed
    ]
    assert result.outcome is Outcome.PASSED, f"{result.outcome}: {'; '.join([*failed, result.note])}"
