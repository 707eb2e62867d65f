"""Every golden case of version 2, and the common ones, through the runner that `ttsfleet-runtime verify` uses.

The audio front end's cases need MKL's portable arithmetic (see `cli`), which a process chooses when it starts: they
run through the command itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ttsfleet_runtime.verify.manifest import Entry, read_manifest
from ttsfleet_runtime.verify.result import Outcome
from ttsfleet_runtime.verify.runner import Runner, Selection, load_case_modules, use_exact_float32

GOLDENS_DIR = Path(__file__).resolve().parent.parent / "goldens"
SELECTION = Selection(model_version=2)
FRONT_END = "front"
ENTRIES = [
    entry for entry in read_manifest(GOLDENS_DIR) if not SELECTION.reason_not_to_run(entry) and entry.fn != FRONT_END
]


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


def test_the_front_end_reproduces_its_golden_cases_through_the_command() -> None:
    command = Path(sys.executable).with_name("ttsfleet-runtime")
    result = subprocess.run(
        [command, "verify", "--goldens", GOLDENS_DIR, "--model-version", "2", "--cases", "v2/fe_*"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout
