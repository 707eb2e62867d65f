"""The verify command: which cases run, what it prints, how it exits."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ttsfleet_runtime.errors import ConfigError
from ttsfleet_runtime.verify import runner
from ttsfleet_runtime.verify.registry import REGISTRY, Case, Context, Outputs

Write = Callable[..., Path]


def twice(case: Case, context: Context) -> Outputs:
    return {"y": case.inputs["x"] * 2}


@pytest.fixture
def goldens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a folder of cases of `twice`; each case is given as changes to a correct entry."""
    monkeypatch.setitem(REGISTRY, "twice", twice)
    x = np.array([1.0, 2.0], np.float32)

    def write(*changes: dict[str, Any]) -> Path:
        save_file({"in.x": x, "out.y": 2 * x}, tmp_path / "good.safetensors")
        save_file({"in.x": x, "out.y": 3 * x}, tmp_path / "wrong.safetensors")
        entries = [
            {
                "name": f"common/case{i}",
                "file": "good.safetensors",
                "fn": "twice",
                "version": None,
                "tolerance": {"fp32": {"y": {"max_abs": 1e-3}}},
                **change,
            }
            for i, change in enumerate(changes)
        ]
        (tmp_path / "MANIFEST.json").write_text(json.dumps({"schema": "", "cases": entries}))
        return tmp_path

    return write


def verify(folder: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    return runner.run(parser.parse_args(["--goldens", str(folder), *options]))


GOOD: dict[str, Any] = {}
WRONG = {"file": "wrong.safetensors"}
INFORMATIVE = {"informative": True, "file": "wrong.safetensors"}
VERSION_3 = {"version": 3, "model": "cosyvoice3-random"}
UNKNOWN_FN = {"fn": "thrice"}
UNKNOWN_TOLERANCE = {"tolerance": {"fp32": {"y": {"max_ulp": 1}}}}


@pytest.mark.parametrize(
    ("cases", "options", "status"),
    [
        ([GOOD], [], 0),
        ([GOOD, INFORMATIVE, VERSION_3], [], 0),
        ([GOOD, WRONG], [], 1),
        ([GOOD, {"file": "missing.safetensors"}], [], 1),
        ([GOOD, UNKNOWN_FN], [], 2),
        ([WRONG, UNKNOWN_FN], [], 2),
        ([GOOD, UNKNOWN_TOLERANCE], [], 2),
        ([GOOD, {"tolerance": {}}], [], 2),
        ([GOOD, {"compare": {"out.y": "only the first"}}], [], 2),
        ([], [], 2),
        ([INFORMATIVE, VERSION_3], [], 2),
        ([GOOD], ["--cases", "v2/*"], 2),
        ([GOOD, WRONG], ["--cases", "common/case0"], 0),
        ([GOOD, WRONG], ["--cases", "case0"], 0),
        ([GOOD, WRONG], ["--cases", "case0", "--cases", "*1"], 1),
        ([GOOD], ["--model-version", "2"], 0),
        ([VERSION_3], ["--model-version", "2"], 2),
        ([VERSION_3], ["--model-version", "3"], 2),
    ],
)
def test_exit_status_says_what_happened(
    cases: list[dict[str, Any]], options: list[str], status: int, goldens: Write
) -> None:
    assert verify(goldens(*cases), *options) == status


def test_table_shows_the_error_beside_its_tolerance(goldens: Write, capsys: pytest.CaptureFixture[str]) -> None:
    verify(goldens(GOOD, WRONG, VERSION_3, INFORMATIVE))
    printed = capsys.readouterr().out
    rows = {line.split()[1]: line for line in printed.splitlines() if "common/case" in line}
    assert "max_abs 0" in rows["common/case0"]
    assert "passed" in rows["common/case0"]
    assert "max_abs 2" in rows["common/case1"]
    assert "0.001" in rows["common/case1"]
    assert "FAILED" in rows["common/case1"]
    assert "version 3 is not implemented" in rows["common/case2"]
    assert "not run" in rows["common/case3"]
    assert "1 passed, 1 FAILED, 2 not run" in printed


def test_cases_that_are_not_selected_are_counted_as_not_run(
    goldens: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(goldens(GOOD, WRONG, VERSION_3), "--cases", "case0") == 0
    printed = capsys.readouterr().out
    assert "2 others" in printed
    assert "not selected" in printed
    assert "1 passed, 2 not run" in printed


def test_case_that_raises_fails_alone(
    goldens: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(case: Case, context: Context) -> Outputs:
        raise RuntimeError("no such layer")

    monkeypatch.setitem(REGISTRY, "broken", broken)
    assert verify(goldens({"fn": "broken"}, GOOD)) == 1
    printed = capsys.readouterr().out
    assert "RuntimeError: no such layer" in printed
    assert "1 passed, 1 FAILED" in printed


def test_file_that_the_manifest_does_not_mean_fails(goldens: Write, capsys: pytest.CaptureFixture[str]) -> None:
    right = hashlib.sha256(b"another file").hexdigest()
    assert verify(goldens({"sha256": right})) == 1
    assert "SHA-256 differs" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"{", b'{"cases": [{"name": "a"}]}'])
def test_folder_without_a_usable_manifest_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "MANIFEST.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"MANIFEST\.json"):
        verify(tmp_path)


def test_missing_cuda_device_is_refused(goldens: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device cuda"):
        verify(goldens(GOOD), "--device", "cuda")


def test_exact_float32_switches_tf32_off() -> None:
    import torch

    runner.use_exact_float32()
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"  # type: ignore[attr-defined]


def test_every_file_of_the_goldens_is_the_one_that_its_manifest_lists(goldens_dir: Path) -> None:
    manifest = json.loads((goldens_dir / "MANIFEST.json").read_text())
    listed = {entry["file"]: entry["sha256"] for entry in manifest["cases"]}
    for file, digest in listed.items():
        assert hashlib.sha256((goldens_dir / file).read_bytes()).hexdigest() == digest, file
    folders = [goldens_dir / name for name in ("common", "v2", "v3")]
    assert {str(path.relative_to(goldens_dir)) for folder in folders for path in folder.iterdir()} == set(listed)
