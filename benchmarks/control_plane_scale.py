"""Scale: many TTSServices at once on a real control plane, against a script that applies the same children.

    PYTHONPATH=e2e .venv/bin/python benchmarks/control_plane_scale.py [--services 1000] [--nodes 500]

Starts a control plane with kwok's nodes, applies the children of all services by a script with parallel writers, then
creates the TTSServices with as many parallel creators and lets the operator do the same; restarts the operator; and
changes the spec of every service. A JSON file holds what is known after every phase; at the end there are a table of
figures and their limits, and a plot. A phase that fails is told and the rest goes on.
The limits are those of 1,000 services on 500 nodes and 2 cores. Exit 1 when one is missed or was not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from control_plane.plane import ControlPlane
from control_plane.scale.load import Told
from control_plane.scale.phases import scale_run
from control_plane.scale.plot import draw
from control_plane.scale.results import ScaleResult, percentile
from control_plane.scale.run import ScaleSettings

console = Console()


class Bars:
    """A bar per phase. One that did not fill up belongs to a phase that failed."""

    def __init__(self, progress: Progress, services: int) -> None:
        self._progress = progress
        self._services = services

    def begin(self, name: str) -> Told:
        task = self._progress.add_task(name, total=self._services)
        return lambda count: self._progress.update(task, completed=count)


def show(result: ScaleResult) -> None:
    table = Table(title=f"{result.services} TTSServices, {result.nodes} nodes, {result.cpus} cores, {result.date}")
    for column in ("figure", "measured", "limit", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for one in result.limits():
        value = "" if one.value is None else f"{one.value:.2f} {one.unit}".strip()
        colour = "green" if one.held else "red"
        table.add_row(one.name, value, f"{one.most:g} {one.unit}".strip(), f"[{colour}]{one.verdict}[/]")
    table.add_section()
    for name, text in result.others():
        table.add_row(name, text)
    table.add_section()
    for name, growth in (("script", result.baseline), ("operator", result.creation), ("change", result.change)):
        if growth is not None:
            halves = " / ".join(f"{percentile(growth.arrivals, share):.0f}" for share in (0.5, 0.95))
            table.add_row(f"{name}: services as wanted, p50 / p95", f"{halves} s")
            spent = growth.control_plane_cpu_seconds or {}
            table.add_row(f"{name}: CPU of the control plane", f"{sum(spent.values()):.0f} s")
    table.add_section()
    writes = (result.creation.writes if result.creation else None) or {}
    for what, count in sorted(writes.items()):
        table.add_row(f"{what}, per service", f"{count / result.services:.2f}")
    console.print(table)
    for phase, error in result.failures.items():
        console.print(f"[red]failed[/] {phase}: {escape(error)}", soft_wrap=True)


def save(result: ScaleResult, path: Path) -> None:
    """Writes the file whole: who is cut off leaves what was there before."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description="many TTSServices at once on a real control plane")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--creators", type=int, default=16, help="parallel writers, of the script too")
    parser.add_argument("--within", type=float, default=1200.0, help="seconds that a phase may take")
    parser.add_argument("--out", type=Path, default=Path("build/scale"), help="folder of the JSON file and the plot")
    arguments = parser.parse_args()
    settings = ScaleSettings(arguments.services, arguments.nodes, arguments.creators, arguments.within)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "scale.json"
    with Progress(*columns, console=console) as progress, ControlPlane.started() as plane:
        bars = Bars(progress, settings.services)
        result = asyncio.run(scale_run(plane, settings, bars.begin, lambda known: save(known, path)))
    draw(result, arguments.out / "scale.png")
    show(result)
    console.print(f"written to {path} and scale.png")
    return 0 if result.held else 1


if __name__ == "__main__":
    sys.exit(main())
