"""Scale: many TTSServices at once on a real control plane, against a script that applies the same children.

    PYTHONPATH=e2e .venv/bin/python benchmarks/control_plane_scale.py [--services 1000] [--nodes 500]

Starts a control plane with kwok's nodes, applies the children of all services by a script with parallel writers, then
creates the TTSServices with as many parallel creators and lets the operator do the same; restarts the operator; and
changes the spec of every service. Ends with a table of figures and their limits, a JSON file, and a plot.
The limits are those of 1,000 services on 500 nodes and 2 cores. Exit 1 when one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from control_plane.plane import ControlPlane
from control_plane.scale.load import Told
from control_plane.scale.plot import draw
from control_plane.scale.results import ScaleResult, percentile
from control_plane.scale.run import ScaleSettings, scale_run

console = Console()


class Phases:
    """A bar per phase; the one before is over when the next begins."""

    def __init__(self, progress: Progress, services: int) -> None:
        self._progress = progress
        self._services = services
        self._close = lambda: None

    def begin(self, name: str) -> Told:
        self.end()
        task = self._progress.add_task(name, total=self._services)
        self._close = lambda: self._progress.update(task, completed=self._services)
        return lambda count: self._progress.update(task, completed=count)

    def end(self) -> None:
        self._close()


def show(result: ScaleResult) -> None:
    table = Table(title=f"{result.services} TTSServices, {result.nodes} nodes, {result.cpus} cores, {result.date}")
    for column in ("figure", "measured", "limit", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for one in result.limits():
        mark = "[green]held[/]" if one.held else "[red]missed[/]"
        table.add_row(one.name, f"{one.value:.2f} {one.unit}".strip(), f"{one.most:g} {one.unit}".strip(), mark)
    table.add_section()
    for name, text in result.others():
        table.add_row(name, text)
    table.add_section()
    for name, growth in (("script", result.baseline), ("operator", result.creation), ("change", result.change)):
        halves = " / ".join(f"{percentile(growth.arrivals, share):.0f}" for share in (0.5, 0.95))
        table.add_row(f"{name}: services as wanted, p50 / p95", f"{halves} s")
        spent = growth.control_plane_cpu_seconds or {}
        table.add_row(f"{name}: CPU of the control plane", f"{sum(spent.values()):.0f} s")
    table.add_section()
    for what, count in sorted((result.creation.writes or {}).items()):
        table.add_row(f"{what}, per service", f"{count / result.services:.2f}")
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="many TTSServices at once on a real control plane")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--creators", type=int, default=16, help="parallel writers, of the script too")
    parser.add_argument("--out", type=Path, default=Path("build/scale"), help="folder of the JSON file and the plot")
    arguments = parser.parse_args()
    settings = ScaleSettings(arguments.services, arguments.nodes, arguments.creators)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress, ControlPlane.started() as plane:
        phases = Phases(progress, settings.services)
        result = asyncio.run(scale_run(plane, settings, phases.begin))
        phases.end()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "scale.json").write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
    draw(result, arguments.out / "scale.png")
    show(result)
    console.print(f"written to {arguments.out}/scale.json and scale.png")
    return 0 if all(one.held for one in result.limits()) else 1


if __name__ == "__main__":
    sys.exit(main())
