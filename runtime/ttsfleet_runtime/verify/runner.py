"""Run golden cases through the production code and say how far off each is: `ttsfleet-runtime verify`.

Which cases run is decided by the manifest and the options (`select`); a case is run by the function that
`registry` holds for its `fn` and judged by `compare`. Exit status: 0 all that ran passed, 1 a case failed, 2 a
case's `fn` or tolerance is not known here, or nothing ran. Tests use `Runner` directly.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console

from ttsfleet_runtime.checkpoint.convert import convert
from ttsfleet_runtime.checkpoint.directory import IMPLEMENTED_VERSIONS
from ttsfleet_runtime.errors import ConfigError
from ttsfleet_runtime.verify.compare import Comparison, UnknownToleranceError, check_tolerance, compare
from ttsfleet_runtime.verify.manifest import Entry, read_case, read_manifest
from ttsfleet_runtime.verify.registry import REGISTRY, Context
from ttsfleet_runtime.verify.result import NOT_SELECTED, Outcome, Result
from ttsfleet_runtime.verify.table import print_results


@dataclass(frozen=True)
class Selection:
    """Which of a manifest's cases are asked for. `model_version` None = all; common cases always count."""

    model_version: int | None = None
    patterns: Sequence[str] = ()
    versions: Collection[int] = IMPLEMENTED_VERSIONS

    def wants(self, entry: Entry) -> bool:
        """False when the options leave the case out."""
        if self.model_version is not None and entry.version not in (None, self.model_version):
            return False
        short = entry.name.rpartition("/")[2]
        names = (entry.name, short)
        return not self.patterns or any(fnmatchcase(name, p) for name in names for p in self.patterns)

    def reason_not_to_run(self, entry: Entry) -> str:
        """Empty when the case is to be run."""
        if not self.wants(entry):
            return NOT_SELECTED
        if entry.informative:
            return "informative: documentation, no requirement"
        if entry.version is not None and entry.version not in self.versions:
            return f"version {entry.version} is not implemented"
        return ""


@dataclass
class Runner:
    """Runs cases of one folder on one device. Bundles of the cases' models go to `cache_dir`, each made once."""

    goldens_dir: Path
    cache_dir: Path
    device: str = "cpu"
    versions: Collection[int] = IMPLEMENTED_VERSIONS
    _bundles: dict[str, Path] = field(default_factory=dict)

    def run(self, entry: Entry) -> Result:
        """Run one case and judge it. Never raises for what the case or its function does wrong."""
        if entry.fn not in REGISTRY:
            return Result(entry.name, entry.fn, Outcome.UNKNOWN, note=f"fn {entry.fn!r} is not known")
        started = time.monotonic()
        tolerance = entry.tolerance.get("fp32", {})
        try:
            case = read_case(self.goldens_dir, entry)
            check_tolerance(case, tolerance, entry.compare)
            produced = REGISTRY[entry.fn](case, self._context(entry))
            comparison = compare(case, produced, tolerance, entry.compare, self.versions)
        except UnknownToleranceError as error:
            return Result(entry.name, entry.fn, Outcome.UNKNOWN, note=str(error))
        except Exception as error:  # noqa: BLE001 - a case may fail in any way; the others are still run
            note = f"{type(error).__name__}: {error}"
            return Result(entry.name, entry.fn, Outcome.FAILED, note=note, seconds=time.monotonic() - started)
        return _judged(entry, comparison, time.monotonic() - started)

    def _context(self, entry: Entry) -> Context:
        if entry.model is None:
            return Context(self.goldens_dir, None, None, self.device)
        model_dir = self.goldens_dir / entry.model
        if entry.model not in self._bundles:
            self._bundles[entry.model] = convert(model_dir, self.cache_dir, dtype="fp32")
        return Context(self.goldens_dir, model_dir, self._bundles[entry.model], self.device)


def _judged(entry: Entry, comparison: Comparison, seconds: float) -> Result:
    outcome = Outcome.PASSED if comparison.passed else Outcome.FAILED
    note = "not compared: " + ", ".join(comparison.not_compared) if comparison.not_compared else ""
    if not comparison.checks:
        note = f"nothing was compared; {note}"
    return Result(entry.name, entry.fn, outcome, comparison.checks, note, seconds)


def load_case_modules() -> None:
    """Fill the registry. Imports torch and the models: call it only when cases are to be run."""
    from ttsfleet_runtime.verify import (  # noqa: F401 - each registers its functions
        audio_cases,
        flow_cases,
        llm_cases,
        sampling_cases,
        table_cases,
        text_cases,
        vocoder_cases,
    )


def use_exact_float32() -> None:
    """Switch TF32 off: the fp32 tolerances assume true fp32 products."""
    import torch

    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]


def exit_status(results: Sequence[Result]) -> int:
    """2 when the verdict itself is in doubt (unknown cases, nothing ran), else 1 when a case failed, else 0."""
    outcomes = {result.outcome for result in results}
    if Outcome.UNKNOWN in outcomes or not outcomes & {Outcome.PASSED, Outcome.FAILED}:
        return 2
    return 1 if Outcome.FAILED in outcomes else 0


def verify(runner: Runner, selection: Selection, console: Console) -> list[Result]:
    """Run the cases that are selected, showing progress on `console`; a result for each case of the manifest."""
    results = []
    entries = read_manifest(runner.goldens_dir)
    with console.status("") as status:
        for entry in entries:
            reason = selection.reason_not_to_run(entry)
            if reason:
                results.append(Result(entry.name, entry.fn, Outcome.NOT_RUN, note=reason))
                continue
            status.update(f"{entry.name} ({len(results) + 1} of {len(entries)})")
            results.append(runner.run(entry))
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--goldens", type=Path, required=True, metavar="DIR", help="folder with MANIFEST.json")
    parser.add_argument("--model-version", type=int, metavar="N", help="only cases of this version, and common ones")
    parser.add_argument("--cases", action="append", default=[], metavar="GLOB", help="e.g. 'v2/llm_*'; repeatable")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the converted models here (else they go)")


def run(args: argparse.Namespace) -> int:
    """The `verify` command. Raises ConfigError for a missing manifest or device."""

    goldens_dir: Path = args.goldens.absolute()
    read_manifest(goldens_dir)
    _prepare(args.device)
    selection = Selection(model_version=args.model_version, patterns=args.cases)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="ttsfleet-verify-") as temporary:
        runner = Runner(goldens_dir, args.cache or Path(temporary), args.device)
        results = verify(runner, selection, console)
    print_results(results, device=args.device)
    return exit_status(results)


def _prepare(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has no usable CUDA device; use --device cpu", param="device")
    load_case_modules()
    use_exact_float32()
