"""The long runs on a real control plane, one after the other: scalings by an autoscaler, idle minutes, the scale run.

    PYTHONPATH=e2e .venv/bin/python benchmarks/control_plane_soak.py [--scalings 200] [--idle-seconds 600]
        [--services 1000] [--nodes 500]

The first two are tests of tests/control_plane with larger numbers, the third is control_plane_scale.py; each shows
how far it is. One JSON file holds what all of them found and is written after every step; a step that fails does not
keep the rest from running. Exit 1 when one failed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "control_plane"
# A test's own figures are in the older family of JUnit files only.
OPTIONS = ("junit_family=xunit1", "log_cli=true", "log_cli_level=INFO", "log_cli_format=%(message)s")

console = Console()


@dataclass(frozen=True)
class Step:
    """A command; `found` reads what it left in the folder that it was given."""

    name: str
    command: list[str]
    found: Callable[[Path], dict[str, Any]]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """What came of a step. `exit_code` 0 is a success."""

    exit_code: int
    seconds: int
    found: dict[str, Any]


def tests_in(file: str, folder: Path) -> list[str]:
    options = [word for option in OPTIONS for word in ("-o", option)]
    return [sys.executable, "-m", "pytest", "-v", *options, f"--junitxml={folder / 'junit.xml'}", str(TESTS / file)]


def steps(arguments: argparse.Namespace, folder: Path) -> list[Step]:
    scale = [str(ROOT / "benchmarks" / "control_plane_scale.py"), f"--out={arguments.out}"]
    scale += [f"--services={arguments.services}", f"--nodes={arguments.nodes}"]
    return [
        Step(
            f"{arguments.scalings} scalings of a service of two classes",
            tests_in("test_scaling.py", folder),
            tests_found,
            {"E2E_SCALINGS": str(arguments.scalings)},
        ),
        Step(
            f"{arguments.idle_seconds} idle seconds with 100 services",
            tests_in("test_scale.py", folder),
            tests_found,
            {"E2E_IDLE_SECONDS": str(arguments.idle_seconds)},
        ),
        Step(
            f"{arguments.services} services on {arguments.nodes} nodes",
            [sys.executable, *scale],
            lambda _: scale_found(arguments.out / "scale.json"),
        ),
    ]


def tests_found(folder: Path) -> dict[str, Any]:
    """Each test of a JUnit file: passed, failed or skipped, its seconds and what it recorded."""
    path = folder / "junit.xml"
    if not path.exists():
        return {}
    found: dict[str, Any] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        verdicts = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
        recorded = {one.attrib["name"]: one.attrib["value"] for one in case.iter("property")}
        seconds = round(float(case.attrib["time"]), 1)
        found[case.attrib["name"]] = {
            "verdict": verdicts[0] if verdicts else "passed",
            "seconds": seconds,
            **recorded,
        }
    path.unlink()
    return found


def scale_found(path: Path) -> dict[str, Any]:
    """The limits and failures of a scale run; its whole file stays beside ours."""
    if not path.exists():
        return {}
    result = json.loads(path.read_text(encoding="utf-8"))
    limits = {one["name"]: {key: one[key] for key in ("verdict", "value", "most")} for one in result["limits"]}
    return {"limits": limits, "failures": result["failures"]}


def run(step: Step, folder: Path) -> Ended:
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "e2e"), **step.environment}
    ended = subprocess.run(step.command, env=environment, cwd=ROOT, check=False)
    return Ended(ended.returncode, round(time.monotonic() - began), step.found(folder))


def show(done: Mapping[str, Ended]) -> None:
    table = Table(title="the long runs")
    for column in ("what", "minutes", ""):
        table.add_column(column, justify="right" if column == "minutes" else "left")
    for name, ended in done.items():
        verdict = "[red]failed[/]" if ended.exit_code else "[green]passed[/]"
        table.add_row(name, f"{ended.seconds / 60:.1f}", verdict)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="the long runs on a real control plane")
    parser.add_argument("--scalings", type=int, default=200)
    parser.add_argument("--idle-seconds", type=int, default=600)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("build/e2e-soak"), help="folder of soak.json and scale.json")
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "scale.json").unlink(missing_ok=True)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    path = arguments.out / "soak.json"
    done: dict[str, Ended] = {}
    with tempfile.TemporaryDirectory(prefix="ttsfleet-soak-") as folder:
        todo = steps(arguments, Path(folder))
        for number, step in enumerate(todo, 1):
            console.rule(f"[{number}/{len(todo)}] {step.name}", align="left")
            done[step.name] = run(step, Path(folder))
            known = {name: asdict(ended) for name, ended in done.items()}
            document = {"date": date, "cpus": os.cpu_count(), "steps": known}
            path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    show(done)
    console.print(f"written to {path}")
    return 1 if any(ended.exit_code for ended in done.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
